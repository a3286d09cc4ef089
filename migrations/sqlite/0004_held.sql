-- 1 for a waiting job that the job file in use does not name: it stays in its batch, but is not claimed.
alter table ledger_jobs add column held integer not null default 0;
