-- The newest answers of a tenant, as people and dashboards ask for them, without sorting all of them. Written as the view
-- `answers` has it; a reader's tenant comes from row-level security.
create index ledger_answers_newest on ledger_answers (tenant, (to_timestamp(answered_at / 1000.0)));
