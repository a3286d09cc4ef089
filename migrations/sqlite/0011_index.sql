-- Indexes: standing sets of questions over a prefix. The catalogue knows the version of every object that was seen;
-- a listing is cut into ranges of keys, each with its position, so that it goes on where it stopped.
create table ledger_indexes (
    id          text   not null primary key,            -- UUID
    tenant      text   not null,
    name        text   not null,
    spec        text   not null,                        -- JSON: prefix, globs, questions with their plans, schedule …
    batch       text   not null,                        -- of its jobs
    paused      boolean not null default false,
    wanted      boolean not null default false,         -- somebody asked for a listing that has not begun
    schedule    text,                                   -- cron, UTC
    run         integer not null default 0,              -- number of the current or last listing
    listing     boolean not null default false,         -- a listing has begun and not ended
    started_at  integer ,
    ended_at    integer ,
    error       text,                                   -- of the last try
    holder      text,                                   -- who lists just now …
    held_until  integer ,                                 -- … and until when, unless it says so again
    created_at  integer not null,
    unique (tenant, name)
);

create table ledger_index_ranges (
    index_id    text   not null references ledger_indexes (id) on delete cascade,
    no          integer not null,
    source      text   not null default '',             -- '' for the bucket itself, else a file of its inventory
    start_after text   not null,                        -- keys after this …
    up_to       text,                                   -- … up to this; null for all
    position    text   not null,                        -- the last key (or row of the inventory file) that is done
    done        boolean not null default false,
    figures     text   not null default '{}',           -- JSON
    primary key (index_id, no)
);

create table ledger_index_objects (
    index_id      text   not null references ledger_indexes (id) on delete cascade,
    key           text   not null,
    etag          text   not null,
    bytes         integer not null,
    modified_at   integer not null,
    storage_class text,
    state         text   not null check (state in ('enqueued', 'restoring', 'skipped')),
    reason        text,                                 -- why it was skipped
    versions      integer not null default 0,            -- versions that were enqueued
    run           integer not null,                      -- the listing that last changed this row
    primary key (index_id, key)
);
create index ledger_index_objects_state on ledger_index_objects (index_id, state);
