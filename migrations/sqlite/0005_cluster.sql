-- What a ledger that several workers and tenants share needs. The table of jobs is rebuilt, because its old rule that
-- (batch, user_id) is unique cannot be altered: now it holds for each tenant.

drop view answers;
drop view failures;
drop view evidence;
drop view rounds;
drop view videos;

create table ledger_jobs_new (
    seq           integer not null primary key autoincrement,  -- order of first submission
    id            text    not null unique,              -- UUID
    tenant        text    not null default 'default',
    batch         text    not null,
    user_id       text    not null,
    fingerprint   blob    not null,                     -- hash of the content: the same id must mean the same content
    spec          text    not null,                     -- JSON, signatures left out
    video_uri     text    not null,                     -- without query and user info
    status        text    not null default 'queued' check (status in ('queued', 'running', 'answered', 'failed', 'cancelled')),
    priority      integer not null default 0,
    epoch         integer not null default 0,           -- grows with every claim; a writer with an older one is stale
    lease_holder  text,
    lease_expires_at integer,                           -- null: for as long as the holder of the home lives
    attempts      integer not null default 0,           -- claims so far
    crashes       integer not null default 0,           -- deaths of the process since the last committed round
    tries         integer not null default 0,           -- passing faults since the last committed round
    held          integer not null default 0,           -- 1: waits, but the job file in use does not name it
    delayed       integer not null default 0,           -- 1: waits for ready_at after a passing fault
    ready_at      integer not null default 0,           -- since (or until) when it can be claimed
    deadline_at   integer,                              -- fails if it has not ended by then
    basis         text,                                 -- what its rounds rest on, as the worker spells it
    error         text,
    permanent     integer,                              -- of the error: 1 where another try cannot help
    created_at    integer not null,
    claimed_at    integer,
    ended_at      integer,
    unique (user_id, batch, tenant)
);
insert into ledger_jobs_new
    (seq, id, batch, user_id, fingerprint, spec, video_uri, status, priority, epoch, lease_holder, lease_expires_at, attempts,
     crashes, held, ready_at, basis, error, permanent, created_at, claimed_at, ended_at)
select seq, id, batch, user_id, fingerprint, spec, video_uri, status, priority, epoch, lease_holder, lease_expires_at, attempts,
     crashes, held, created_at, basis, error, permanent, created_at, claimed_at, ended_at
from ledger_jobs;
drop table ledger_jobs;
alter table ledger_jobs_new rename to ledger_jobs;

-- Claims: what can be claimed beside others, by rank; of one video; of one batch.
create index ledger_jobs_ready on ledger_jobs (priority desc, seq)
    where status = 'queued' and held = false and delayed = false and crashes < 2;
create index ledger_jobs_ready_video on ledger_jobs (video_uri, tenant, priority desc, seq)
    where status = 'queued' and held = false and delayed = false and crashes < 2;
create index ledger_jobs_ready_batch on ledger_jobs (batch, priority desc, seq)
    where status = 'queued' and held = false and delayed = false and crashes < 2;
create index ledger_jobs_alone on ledger_jobs (crashes, seq) where status = 'queued' and crashes >= 2;
create index ledger_jobs_delayed on ledger_jobs (ready_at) where status = 'queued' and delayed = true;
create index ledger_jobs_running on ledger_jobs (lease_holder) where status = 'running';
create index ledger_jobs_deadline on ledger_jobs (deadline_at) where deadline_at is not null;
-- Lists and counts.
create index ledger_jobs_batch on ledger_jobs (tenant, batch, status, seq);
create index ledger_jobs_video on ledger_jobs (video_uri, tenant, seq);

-- A batch as a whole: what is to happen when all its jobs have ended.
create table ledger_batches (
    seq            integer not null primary key autoincrement,
    tenant         text    not null,
    name           text    not null,
    created_at     integer not null,
    bad_lines      integer not null,
    sealed         integer not null,                    -- 1: all its jobs are in
    results        text,                                -- URI prefix
    webhook_url    text,
    webhook_secret text,
    exported_at    integer,
    told_at        integer,
    tries          integer not null default 0,          -- failed attempts at export or webhook
    error          text,
    next_at        integer not null,                    -- not before
    unique (tenant, name)
);
create table ledger_bad_lines (
    tenant text    not null,
    batch  text    not null,
    line   integer not null,
    error  text    not null,
    primary key (tenant, batch, line)
) without rowid;

-- The views again, with whose each row is.

create view answers as
select
    j.id                                          as job_id,
    j.user_id                                     as id,
    j.batch                                       as batch,
    j.video_uri                                   as video,
    json_extract(a.video, '$.etag')               as video_etag,
    json_extract(a.video, '$.duration_s')         as video_s,
    json_extract(j.spec, '$.question.text')       as question,
    json_extract(j.spec, '$.question.choices')    as choices,
    a.answer                                      as answer,
    a.choice                                      as choice,
    a.confidence                                  as confidence,
    json_extract(j.spec, '$.plan.name')           as plan,
    json_extract(j.spec, '$.plan.settings.strategy') as strategy,
    json_extract(j.spec, '$.plan.settings')       as settings,
    json_extract(a.evidence, '$[0].start_s')      as start_s,
    json_extract(a.evidence, '$[0].end_s')        as end_s,
    json_extract(a.evidence, '$[0].frames_s')     as frames_s,
    json_extract(a.totals, '$.rounds')            as rounds,
    json_extract(a.totals, '$.target_frames')     as target_frames,
    json_extract(a.totals, '$.draft_frames')      as draft_frames,
    json_extract(a.totals, '$.tokens.text')       as text_tokens,
    json_extract(a.totals, '$.tokens.visual')     as visual_tokens,
    json_extract(a.totals, '$.tokens.reused')     as reused_tokens,
    json_extract(a.totals, '$.tokens.generated')  as generated_tokens,
    json_extract(a.totals, '$.io.requests')       as requests,
    json_extract(a.totals, '$.io.bytes')          as bytes,
    json_extract(a.totals, '$.io.decoded_frames') as decoded_frames,
    json_extract(a.totals, '$.times.fetch_ms')    as fetch_ms,
    json_extract(a.totals, '$.times.decode_ms')   as decode_ms,
    json_extract(a.totals, '$.times.vision_ms')   as vision_ms,
    json_extract(a.totals, '$.times.prefill_ms')  as prefill_ms,
    json_extract(a.totals, '$.times.generate_ms') as generate_ms,
    json_extract(a.target, '$.name')              as target,
    json_extract(a.target, '$.revision')          as target_revision,
    json_extract(a.draft, '$.name')               as draft,
    json_extract(a.draft, '$.revision')           as draft_revision,
    j.attempts                                    as attempts,
    a.trace                                       as trace,
    strftime('%Y-%m-%dT%H:%M:%fZ', j.created_at / 1000.0, 'unixepoch')  as created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', a.answered_at / 1000.0, 'unixepoch') as answered_at,
    j.tenant                                      as tenant
from ledger_answers a
join ledger_jobs j on j.id = a.job_id;

create view failures as
select
    j.id                                          as job_id,
    j.user_id                                     as id,
    j.batch                                       as batch,
    j.video_uri                                   as video,
    json_extract(j.spec, '$.question.text')       as question,
    json_extract(j.spec, '$.question.choices')    as choices,
    j.error                                       as error,
    j.permanent                                   as permanent,
    (select count(*) from ledger_rounds r where r.job_id = j.id) as rounds,
    j.attempts                                    as attempts,
    j.crashes                                     as crashes,
    json_extract(j.spec, '$.plan.name')           as plan,
    json_extract(j.spec, '$.plan.settings.strategy') as strategy,
    json_extract(j.spec, '$.plan.settings')       as settings,
    strftime('%Y-%m-%dT%H:%M:%fZ', j.created_at / 1000.0, 'unixepoch') as created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', j.ended_at / 1000.0, 'unixepoch')   as failed_at,
    j.tenant                                      as tenant
from ledger_jobs j
where j.status = 'failed';

create view evidence as
select
    j.id                                          as job_id,
    j.user_id                                     as id,
    j.batch                                       as batch,
    j.video_uri                                   as video,
    json_extract(a.video, '$.etag')               as video_etag,
    json_extract(j.spec, '$.question.text')       as question,
    a.answer                                      as answer,
    a.choice                                      as choice,
    a.confidence                                  as confidence,
    span.key                                      as span,
    json_extract(span.value, '$.start_s')         as start_s,
    json_extract(span.value, '$.end_s')           as end_s,
    frame.key                                     as frame,
    frame.value                                   as pts_s,
    j.tenant                                      as tenant
from ledger_answers a
join ledger_jobs j on j.id = a.job_id
join json_each(a.evidence) span
join json_each(span.value, '$.frames_s') frame;

create view rounds as
select
    j.id                                          as job_id,
    j.user_id                                     as id,
    j.batch                                       as batch,
    j.video_uri                                   as video,
    json_extract(j.spec, '$.question.text')       as question,
    json_extract(j.spec, '$.plan.name')           as plan,
    json_extract(j.spec, '$.plan.settings.strategy') as strategy,
    json_extract(j.spec, '$.plan.settings')       as settings,
    j.status                                      as status,
    r.no                                          as round,
    r.start_s                                     as start_s,
    r.end_s                                       as end_s,
    r.chosen_by                                   as chosen_by,
    r.frames                                      as target_frames,
    r.draft_frames                                as draft_frames,
    r.dense_fps                                   as dense_fps,
    r.verdict                                     as verdict,
    r.next_start_s                                as next_start_s,
    r.next_end_s                                  as next_end_s,
    r.fallbacks                                   as fallbacks,
    r.text_tokens                                 as text_tokens,
    r.visual_tokens                               as visual_tokens,
    r.reused_tokens                               as reused_tokens,
    r.generated_tokens                            as generated_tokens,
    r.requests                                    as requests,
    r.bytes                                       as bytes,
    r.decoded_frames                              as decoded_frames,
    r.fetch_ms                                    as fetch_ms,
    r.decode_ms                                   as decode_ms,
    r.vision_ms                                   as vision_ms,
    r.prefill_ms                                  as prefill_ms,
    r.generate_ms                                 as generate_ms,
    r.round                                       as json,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.committed_at / 1000.0, 'unixepoch') as committed_at,
    j.tenant                                      as tenant
from ledger_rounds r
join ledger_jobs j on j.id = r.job_id;

create view videos as
select
    v.id                                          as video_id,
    v.uri                                         as video,
    nullif(v.etag, '')                            as etag,
    v.bytes                                       as bytes,
    v.duration_s                                  as video_s,
    v.probe                                       as probe,
    length(v.record)                              as index_bytes,
    coalesce(j.jobs, 0)                           as jobs,
    strftime('%Y-%m-%dT%H:%M:%fZ', v.touched_at / 1000.0, 'unixepoch') as seen_at,
    j.tenant                                      as tenant
from ledger_videos v
left join (select video_uri, tenant, count(*) as jobs from ledger_jobs group by video_uri, tenant) j on j.video_uri = v.uri;

create view jobs_by_state as
select batch, status as state, count(*) as jobs, tenant
from ledger_jobs
group by tenant, batch, status;
