-- The ledger: what was asked, every committed round, every answer. Times are milliseconds since 1970 (UTC).
-- The base tables are private to the program; people and tools read the views of the next migration.

-- One version (ETag) of one video object, with what was learnt at first contact.
create table ledger_videos (
    id          uuid             not null primary key,
    uri         text             not null,              -- without query and user info
    etag        text             not null default '',   -- '' where the store gives none
    bytes       bigint           not null,
    duration_s  double precision,
    probe       jsonb            not null,
    record      bytea            not null,              -- the video crate's own record: keyframe index and the like
    touched_at  bigint           not null,
    unique (uri, etag)
);
create index ledger_videos_touched on ledger_videos (uri, touched_at);

-- Room is left in each page, so that a heartbeat writes the row beside its old version and touches no index.
create table ledger_jobs (
    seq           bigint  not null generated always as identity primary key,  -- order of first submission
    id            uuid    not null unique,
    tenant        text    not null default 'default',
    batch         text    not null,
    user_id       text    not null,
    fingerprint   bytea   not null,                     -- hash of the content: the same id must mean the same content
    spec          jsonb   not null,                     -- signatures left out
    video_uri     text    not null,                     -- without query and user info
    status        text    not null default 'queued' check (status in ('queued', 'running', 'answered', 'failed', 'cancelled')),
    priority      bigint  not null default 0,
    epoch         bigint  not null default 0,           -- grows with every claim; a writer with an older one is stale
    lease_holder  text,
    lease_expires_at bigint,                            -- no index: heartbeats change it, and few jobs run
    attempts      bigint  not null default 0,           -- claims so far
    crashes       bigint  not null default 0,           -- deaths of the process since the last committed round
    tries         bigint  not null default 0,           -- passing faults since the last committed round
    held          boolean not null default false,       -- waits, but the job file in use does not name it
    delayed       boolean not null default false,       -- waits for ready_at after a passing fault
    ready_at      bigint  not null,                     -- since (or until) when it can be claimed
    deadline_at   bigint,                               -- fails if it has not ended by then
    basis         text,                                 -- what its rounds rest on, as the worker spells it
    error         text,
    permanent     boolean,                              -- of the error: true where another try cannot help
    created_at    bigint  not null,
    claimed_at    bigint,
    ended_at      bigint,
    unique (user_id, batch, tenant)
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

-- Claims: what can be claimed beside others, by rank; of one video. A claim reads one entry of the index, however long
-- the queue is; claimed rows leave it.
create index ledger_jobs_ready on ledger_jobs (priority desc, seq)
    where status = 'queued' and held = false and delayed = false and crashes < 2;
create index ledger_jobs_ready_video on ledger_jobs (video_uri, tenant, priority desc, seq)
    where status = 'queued' and held = false and delayed = false and crashes < 2;
create index ledger_jobs_alone on ledger_jobs (crashes, seq) where status = 'queued' and crashes >= 2;
create index ledger_jobs_delayed on ledger_jobs (ready_at) where status = 'queued' and delayed = true;
create index ledger_jobs_running on ledger_jobs (lease_holder) where status = 'running';
create index ledger_jobs_deadline on ledger_jobs (deadline_at)
    where deadline_at is not null and status in ('queued', 'running');
-- Lists: of a tenant, of a batch, of a video. Most jobs of a large ledger are answered, so what is not has an index.
create index ledger_jobs_tenant on ledger_jobs (tenant, seq);
create index ledger_jobs_batch on ledger_jobs (tenant, batch, seq);
create index ledger_jobs_open on ledger_jobs (tenant, batch, seq) where status <> 'answered';
create index ledger_jobs_failed on ledger_jobs (tenant, seq) where status = 'failed';
create index ledger_jobs_video on ledger_jobs (video_uri, tenant, seq);

-- One committed round; `round` is the whole of it, the other columns are for questions in SQL. No foreign key: the
-- guarded insert looks at the job's row and locks it anyway.
create table ledger_rounds (
    job_id           uuid             not null,
    no               bigint           not null,
    epoch            bigint           not null,
    round            json             not null,         -- as it was written
    start_s          double precision not null,
    end_s            double precision not null,
    chosen_by        text             not null,
    frames           bigint           not null,
    draft_frames     bigint           not null,
    dense_fps        double precision,
    verdict          text             not null,
    next_start_s     double precision,
    next_end_s       double precision,
    fallbacks        bigint           not null,
    text_tokens      bigint           not null,
    visual_tokens    bigint           not null,
    reused_tokens    bigint           not null,
    generated_tokens bigint           not null,
    requests         bigint           not null,
    bytes            bigint           not null,
    decoded_frames   bigint           not null,
    fetch_ms         double precision not null,
    decode_ms        double precision not null,
    vision_ms        double precision not null,
    prefill_ms       double precision not null,
    generate_ms      double precision not null,
    committed_at     bigint           not null,
    primary key (job_id, no)
);

-- At most one answer per job.
create table ledger_answers (
    job_id           uuid             not null primary key references ledger_jobs (id),
    epoch            bigint           not null,
    answer           text             not null,
    choice           text,
    confidence       double precision,
    evidence         jsonb            not null,         -- spans with their frame times
    totals           jsonb            not null,
    video            jsonb            not null,         -- the version of the video that was seen
    target           jsonb            not null,         -- name and revision
    draft            jsonb,
    trace            text             not null,         -- key of the trace object
    answered_at      bigint           not null
);

-- A batch as a whole: what is to happen when all its jobs have ended.
create table ledger_batches (
    seq            bigint  not null generated always as identity primary key,
    tenant         text    not null,
    name           text    not null,
    created_at     bigint  not null,
    bad_lines      bigint  not null,
    sealed         boolean not null,                    -- all its jobs are in
    results        text,                                -- URI prefix
    webhook_url    text,
    webhook_secret text,
    exported_at    bigint,
    told_at        bigint,
    tries          bigint  not null default 0,          -- failed attempts at export or webhook
    error          text,
    next_at        bigint  not null,                    -- not before
    unique (tenant, name)
);
create index ledger_batches_open on ledger_batches (next_at)
    where sealed and ((results is not null and exported_at is null) or (webhook_url is not null and told_at is null));
create table ledger_bad_lines (
    tenant text   not null,
    batch  text   not null,
    line   bigint not null,
    error  text   not null,
    primary key (tenant, batch, line)
);

-- How many jobs there are by state, kept by triggers: counting millions of rows takes seconds. Each connection adds to
-- a row of its own (nearly: there are 64 of each kind), so that workers do not wait for one another; a row may be
-- negative, the sum is right.
create table ledger_counts (
    tenant text     not null,
    batch  text     not null,
    status text     not null,
    shard  smallint not null,
    jobs   bigint   not null,
    primary key (tenant, batch, status, shard)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

create function ledger_count_inserted() returns trigger language plpgsql as $$
begin
    insert into ledger_counts as c (tenant, batch, status, shard, jobs)
    select tenant, batch, status, pg_backend_pid() % 64, count(*) from added group by tenant, batch, status
    order by tenant, batch, status
    on conflict (tenant, batch, status, shard) do update set jobs = c.jobs + excluded.jobs;
    return null;
end $$;

-- Rows whose state stays the same (heartbeats) cost nothing but the look.
create function ledger_count_updated() returns trigger language plpgsql as $$
begin
    insert into ledger_counts as c (tenant, batch, status, shard, jobs)
    select tenant, batch, status, pg_backend_pid() % 64, sum(jobs) from (
        select n.tenant, n.batch, n.status, 1 as jobs
        from added n join removed o on o.seq = n.seq where o.status <> n.status
        union all
        select o.tenant, o.batch, o.status, -1
        from added n join removed o on o.seq = n.seq where o.status <> n.status
    ) moved
    group by tenant, batch, status
    having sum(jobs) <> 0
    order by tenant, batch, status
    on conflict (tenant, batch, status, shard) do update set jobs = c.jobs + excluded.jobs;
    return null;
end $$;

create function ledger_count_deleted() returns trigger language plpgsql as $$
begin
    insert into ledger_counts as c (tenant, batch, status, shard, jobs)
    select tenant, batch, status, pg_backend_pid() % 64, -count(*) from removed group by tenant, batch, status
    order by tenant, batch, status
    on conflict (tenant, batch, status, shard) do update set jobs = c.jobs + excluded.jobs;
    return null;
end $$;

create trigger ledger_count_inserted after insert on ledger_jobs
    referencing new table as added for each statement execute function ledger_count_inserted();
create trigger ledger_count_updated after update on ledger_jobs
    referencing old table as removed new table as added for each statement execute function ledger_count_updated();
create trigger ledger_count_deleted after delete on ledger_jobs
    referencing old table as removed for each statement execute function ledger_count_deleted();
