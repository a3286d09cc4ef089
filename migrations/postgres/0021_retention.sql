-- Jobs that have ended, the oldest first: retention forgets them from that end.
create index ledger_jobs_ended on ledger_jobs (ended_at)
    where ended_at is not null and status in ('answered', 'failed', 'cancelled');
create index ledger_requests_job on ledger_requests (job_id);
