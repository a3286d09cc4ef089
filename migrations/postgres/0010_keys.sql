-- API keys. Only a hash of the secret is kept; people read them with `spectemp key list`.
create table ledger_keys (
    id          text   not null primary key,            -- names the key, is no secret
    tenant      text   not null,
    role        text   not null check (role in ('read', 'submit', 'admin')),
    name        text   not null,
    hash        bytea  not null unique,
    created_at  bigint not null,
    used_at     bigint,                                 -- to about five minutes
    revoked_at  bigint
);
