-- Objects with the lines of a batch that a server reads in the background. A row is there until the last line is in.
create table ledger_manifests (
    seq        integer not null primary key autoincrement,
    tenant     text    not null,
    batch      text    not null,
    uri        text    not null,                        -- where the lines lie
    defaults   text    not null,                        -- JSON: what lines have that do not say otherwise
    tries      integer not null default 0,              -- readings that have begun
    error      text,                                    -- of the last one
    holder     text,                                    -- who reads just now …
    held_until integer not null,                        -- … and until when, unless it says so again; not to be read before
    created_at integer not null
);
create index ledger_manifests_due on ledger_manifests (held_until);
create index ledger_manifests_batch on ledger_manifests (tenant, batch);
