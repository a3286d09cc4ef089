-- The ledger: what was asked, every committed round, every answer. Times are milliseconds since 1970 (UTC).
-- The base tables are private to the program; people and tools read the views of the next migration.

-- One version (ETag) of one video object, with what was learnt at first contact.
create table ledger_videos (
    id          text    not null primary key,           -- UUID
    uri         text    not null,                       -- without query and user info
    etag        text    not null default '',            -- '' where the store gives none
    bytes       integer not null,
    duration_s  real,
    probe       text    not null,                       -- JSON
    record      blob    not null,                       -- the video crate's own record: keyframe index and the like
    touched_at  integer not null,
    unique (uri, etag)
);
create index ledger_videos_touched on ledger_videos (uri, touched_at);

create table ledger_jobs (
    seq           integer not null primary key autoincrement,  -- order of first submission
    id            text    not null unique,              -- UUID
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
    error         text,
    permanent     integer,                              -- of the error: 1 where another try cannot help
    created_at    integer not null,
    claimed_at    integer,
    ended_at      integer,
    unique (batch, user_id)
);
create index ledger_jobs_ready on ledger_jobs (status, priority desc, seq);
create index ledger_jobs_batch on ledger_jobs (batch, status, priority desc, seq);
create index ledger_jobs_video on ledger_jobs (video_uri, status);
create index ledger_jobs_user on ledger_jobs (user_id);

-- One committed round; `round` is the whole of it, the other columns are for questions in SQL.
create table ledger_rounds (
    job_id           text    not null references ledger_jobs (id),
    no               integer not null,
    epoch            integer not null,
    round            text    not null,                  -- JSON
    start_s          real    not null,
    end_s            real    not null,
    chosen_by        text    not null,
    frames           integer not null,
    draft_frames     integer not null,
    dense_fps        real,
    verdict          text    not null,
    next_start_s     real,
    next_end_s       real,
    fallbacks        integer not null,
    text_tokens      integer not null,
    visual_tokens    integer not null,
    reused_tokens    integer not null,
    generated_tokens integer not null,
    requests         integer not null,
    bytes            integer not null,
    decoded_frames   integer not null,
    fetch_ms         real    not null,
    decode_ms        real    not null,
    vision_ms        real    not null,
    prefill_ms       real    not null,
    generate_ms      real    not null,
    committed_at     integer not null,
    primary key (job_id, no)
) without rowid;

-- At most one answer per job.
create table ledger_answers (
    job_id           text    not null primary key references ledger_jobs (id),
    epoch            integer not null,
    answer           text    not null,
    choice           text,
    confidence       real,
    evidence         text    not null,                  -- JSON: spans with their frame times
    totals           text    not null,                  -- JSON
    video            text    not null,                  -- JSON: the version of the video that was seen
    target           text    not null,                  -- JSON: name and revision
    draft            text,                              -- JSON
    trace            text    not null,                  -- key of the trace object
    answered_at      integer not null
) without rowid;
