-- Requests with an idempotency key, and the job that each has made.
create table ledger_requests (
    tenant     text    not null,
    key        text    not null,
    request    blob    not null,                        -- hash of what was asked
    job_id     text    not null,
    created_at integer not null,
    primary key (tenant, key)
) without rowid;
create index ledger_requests_created on ledger_requests (created_at);
