//! What Postgres does for the statements that run for every job: for `spectemp bench queue`.

use spectemp_types::{JobId, JobStatus};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::{
    LedgerReader,
    claim::READY,
    job::{PROGRESSED, job_columns},
};
use crate::{
    LedgerKind, StoreError,
    db::{Pool, spell},
};

const WHAT: &str = "explain its statements";
const SETTINGS: [&str; 8] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "effective_cache_size",
    "random_page_cost",
];

/// One statement and what the server did for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What it is for.
    pub name: &'static str,
    /// `explain (analyze, buffers)`.
    pub plan: String,
}

impl LedgerReader {
    /// Settings of the server that times depend on; empty for a file.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn server_settings(&self) -> Result<Vec<(String, String)>, StoreError> {
        let Pool::Postgres(pool) = &self.reads else { return Ok(Vec::new()) };
        let names: Vec<String> = SETTINGS.iter().map(|name| (*name).to_owned()).collect();
        sqlx::query_as("select name, current_setting(name) from unnest($1) as name")
            .bind(names)
            .fetch_all(pool)
            .await
            .map_err(StoreError::database(WHAT))
    }

    /// Runs the statements of a claim, a checkpoint, a sweep and the lists as they are, with a job that waits, and
    /// undoes them; then questions to the views, as `spectemp_reader` of its tenant. Empty for a file, or where no job waits.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn explain(&self) -> Result<Vec<Explained>, StoreError> {
        let Pool::Postgres(pool) = &self.reads else { return Ok(Vec::new()) };
        let Some((id, tenant, batch, video)) = some_job(pool).await? else { return Ok(Vec::new()) };
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let mut explained = Vec::new();
        let own = statements(id, &quoted(&tenant), &quoted(&batch), &quoted(&video)).into_iter();
        let own = own.map(|(name, statement)| (name, None, statement));
        let views = views(&quoted(&video), begun_job(pool).await?.unwrap_or(id)).into_iter();
        let views = views.map(|(name, statement)| (name, Some(tenant.as_str()), statement));
        for (name, reader_of, statement) in own.chain(views) {
            let mut transaction = pool.begin().await.map_err(StoreError::database(WHAT))?;
            if let Some(tenant) = reader_of {
                become_reader(&mut transaction, tenant).await?;
            }
            let plan = plan_of(&mut transaction, &statement).await?;
            transaction.rollback().await.map_err(StoreError::database(WHAT))?;
            explained.push(Explained { name, plan });
        }
        Ok(explained)
    }
}

async fn some_job(pool: &PgPool) -> Result<Option<(JobId, String, String, String)>, StoreError> {
    let row: Option<(sqlx::types::Uuid, String, String, String)> = sqlx::query_as(
        "select id, tenant, batch, video_uri from ledger_jobs where status = 'queued' order by seq desc limit 1",
    )
    .fetch_optional(pool)
    .await
    .map_err(StoreError::database(WHAT))?;
    Ok(row.map(|(id, tenant, batch, video)| (JobId::from(id), tenant, batch, video)))
}

/// A job that has rounds.
async fn begun_job(pool: &PgPool) -> Result<Option<JobId>, StoreError> {
    let id: Option<sqlx::types::Uuid> = sqlx::query_scalar("select job_id from ledger_rounds limit 1")
        .fetch_optional(pool)
        .await
        .map_err(StoreError::database(WHAT))?;
    Ok(id.map(JobId::from))
}

async fn plan_of(connection: &mut PgConnection, statement: &str) -> Result<String, StoreError> {
    let statement = spell(statement, LedgerKind::Postgres);
    let lines: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(format!("explain (analyze, buffers, summary off) {statement}")))
            .persistent(false)
            .fetch_all(connection)
            .await
            .map_err(StoreError::database(WHAT))?;
    Ok(lines.join("\n"))
}

/// Goes on as who asks in SQL for `tenant`, until the transaction ends.
async fn become_reader(connection: &mut PgConnection, tenant: &str) -> Result<(), StoreError> {
    sqlx::query(
        "insert into ledger_reader_sessions (pid, started_us, tenant) \
         select pg_backend_pid(), cast(extract(epoch from backend_start) * 1000000 as bigint), $1 \
         from pg_stat_get_activity(pg_backend_pid()) \
         on conflict (pid) do update set started_us = excluded.started_us, tenant = excluded.tenant",
    )
    .bind(tenant)
    .execute(&mut *connection)
    .await
    .map_err(StoreError::database(WHAT))?;
    sqlx::query("set local role spectemp_reader")
        .execute(connection)
        .await
        .map_err(StoreError::database(WHAT))?;
    Ok(())
}

/// What people ask the views.
fn views(video: &str, begun: JobId) -> Vec<(&'static str, String)> {
    vec![
        ("view: jobs by state", "select state, sum(jobs) from jobs_by_state group by state".to_owned()),
        (
            "view: the newest answers",
            "select id, answer, confidence from answers order by answered_at desc limit 20".to_owned(),
        ),
        (
            "view: the answers about a video",
            format!("select id, question, answer from answers where video = {video}"),
        ),
        (
            "view: the rounds of a question",
            format!(
                "select round, verdict, start_s, end_s from rounds where job_id = '{begun}' order by round"
            ),
        ),
    ]
}

/// The statements as the ledger spells them, with literals for their values.
fn statements(id: JobId, tenant: &str, batch: &str, video: &str) -> Vec<(&'static str, String)> {
    let columns = job_columns();
    let failed = JobStatus::Failed;
    vec![
        (
            "claim: the best job",
            format!(
                "select {columns} from ledger_jobs j where {READY} order by priority desc, seq limit 1 {{skip_locked_job}}"
            ),
        ),
        (
            "claim: its siblings on the same video",
            format!(
                "select {columns} from ledger_jobs j where {READY} and video_uri = {video} and tenant = {tenant} \
                 order by priority desc, seq limit 4 {{skip_locked_job}}"
            ),
        ),
        (
            "claim: what the worker runs, and whether a wait is over",
            "select count(*) as running, count(*) filter (where crashes >= 2) as alone, \
             exists (select 1 from ledger_jobs where status = 'queued' and delayed = true and ready_at <= {now}) as due \
             from ledger_jobs where status = 'running' and lease_holder = 'worker 1'"
                .to_owned(),
        ),
        (
            "claim: take it (with the trigger that counts)",
            format!(
                "update ledger_jobs set status = 'running', epoch = epoch + 1, attempts = attempts + 1, lease_holder = 'worker 1', \
                 lease_expires_at = {{now}} + 60000, claimed_at = {{now}} where id = '{id}' and status = 'queued'"
            ),
        ),
        (
            "checkpoint: the guard of the insert",
            format!(
                "select 1 from ledger_jobs j where j.id = '{id}' and j.status = 'queued' and j.epoch = 0 \
                 and (select count(*) from ledger_rounds where job_id = '{id}') = 0 {{lock_job}}"
            ),
        ),
        (
            "expire: leases that have run out",
            format!(
                "select id, {PROGRESSED} from ledger_jobs j where status = 'running' and lease_expires_at <= {{now}} limit 10000 \
                 for update skip locked"
            ),
        ),
        (
            "expire: deadlines that have passed",
            "select id from ledger_jobs where status in ('queued', 'running') and deadline_at <= {now} \
             order by deadline_at limit 10000 {skip_locked}"
                .to_owned(),
        ),
        (
            "list: a page of a batch",
            format!(
                "select {columns} from ledger_jobs j where true and j.tenant = {tenant} and j.batch = {batch} and j.seq > -1 \
                 order by j.seq limit 100"
            ),
        ),
        (
            "list: failed jobs of a tenant",
            format!(
                "select {columns} from ledger_jobs j where true and j.tenant = {tenant} and j.status = '{failed}' and j.seq > -1 \
                 order by j.seq limit 100"
            ),
        ),
    ]
}
