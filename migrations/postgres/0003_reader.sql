-- What the role `spectemp_reader` (made by `spectemp migrate` before this) may see: the views, and in them the rows of
-- one tenant.
--
-- Which tenant is not a setting, because any query can change settings (`set_config`). It hangs on who is connected:
-- on the backend that the program has bound to a tenant for one query of the API, else on the login's name.

-- Logins for people and tools. Another login: `create role acme_bi login password '…' in role spectemp_reader` and a
-- row here. A login that shall see all tenants is given `bypassrls`.
create table ledger_reader_roles (
    role   name not null primary key,
    tenant text not null
);
insert into ledger_reader_roles (role, tenant) values ('spectemp_reader', 'default');

-- Backends that answer one query of the API. A process id is given again after a while, so its start belongs to it.
-- A row stays until its backend is gone.
create unlogged table ledger_reader_sessions (
    pid        integer not null primary key,
    started_us bigint  not null,
    tenant     text    not null
);

create function ledger_reader_tenant() returns text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce(
        (select s.tenant from public.ledger_reader_sessions s
         where s.pid = pg_backend_pid() and s.started_us = (
             select cast(extract(epoch from a.backend_start) * 1000000 as bigint)
             from pg_stat_get_activity(pg_backend_pid()) a)),
        (select r.tenant from public.ledger_reader_roles r where r.role = session_user))
$$;
revoke execute on function ledger_reader_tenant() from public;
grant execute on function ledger_reader_tenant() to spectemp_reader;

alter table ledger_jobs enable row level security;
alter table ledger_rounds enable row level security;
alter table ledger_answers enable row level security;
alter table ledger_videos enable row level security;
alter table ledger_counts enable row level security;
create policy reader on ledger_jobs for select to spectemp_reader
    using (tenant = (select ledger_reader_tenant()));
create policy reader on ledger_counts for select to spectemp_reader
    using (tenant = (select ledger_reader_tenant()));
-- Rows of others are found through the jobs, which are only one's own.
create policy reader on ledger_rounds for select to spectemp_reader
    using (exists (select 1 from ledger_jobs j where j.id = job_id));
create policy reader on ledger_answers for select to spectemp_reader
    using (exists (select 1 from ledger_jobs j where j.id = job_id));
create policy reader on ledger_videos for select to spectemp_reader
    using (exists (select 1 from ledger_jobs j where j.video_uri = uri));

grant usage on schema public to spectemp_reader;
grant select on answers, failures, evidence, rounds, videos, jobs_by_state to spectemp_reader;
-- The views read as who asks, so he needs the columns that they read.
grant select (id, tenant, batch, user_id, spec, video_uri, status, attempts, crashes, error, permanent, created_at, ended_at)
    on ledger_jobs to spectemp_reader;
grant select on ledger_rounds to spectemp_reader;
grant select (job_id, answer, choice, confidence, evidence, totals, video, target, draft, trace, answered_at)
    on ledger_answers to spectemp_reader;
grant select (id, uri, etag, bytes, duration_s, probe, record, touched_at) on ledger_videos to spectemp_reader;
grant select (tenant, batch, status, jobs) on ledger_counts to spectemp_reader;
