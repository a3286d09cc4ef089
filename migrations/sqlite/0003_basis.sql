-- What a job's committed rounds rest on (version of the video, models), as the worker spells it: rounds that rest on
-- different things are never mixed.
alter table ledger_jobs add column basis text;
