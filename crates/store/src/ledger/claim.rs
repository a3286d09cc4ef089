//! Claiming: a queued job becomes running and its claimer gets a lease.
//!
//! A process that dies counts against the jobs it had running only where they committed no round since their
//! claim. A job that was running at [`ALONE_AFTER`] such deaths in a row is suspected to bring the program down:
//! from then on it runs after all others and alone, so that it cannot take others with it and no other death is
//! blamed on it. At [`FAIL_AFTER`] deaths in a row it has failed. That is many on purpose: a user who kills the program
//! (or a machine that loses power) again and again within one slow round must not lose an answer by it, and a job that
//! does bring the program down holds nobody up meanwhile, since it runs last.

use spectemp_types::{JobId, Round, VideoUri};
use sqlx::{AssertSqlSafe, SqliteConnection, sqlite::SqliteRow};

use super::{
    Job, Lease, Ledger,
    job::{JOB_COLUMNS, column, parse_column},
    now_ms,
    read::rounds_of,
};
use crate::StoreError;

/// Deaths in a row after which a job runs alone.
pub(super) const ALONE_AFTER: u32 = 2;
/// Deaths in a row, all but the first two of them alone, after which a job has failed.
pub(super) const FAIL_AFTER: u32 = 10;

/// What to claim.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Only of this batch.
    pub batch: Option<&'a str>,
    /// Name of the claimer, for people who read the ledger.
    pub worker: &'a str,
    /// Most jobs to claim; they all are about one video.
    pub limit: usize,
    /// A video whose bytes and frames are at hand: its jobs come first.
    pub prefer_video: Option<&'a VideoUri>,
}

/// A claimed job.
#[derive(Debug)]
pub struct Claimed {
    /// The right to write about it.
    pub lease: Lease,
    /// The job. Its video has no query: signatures are never stored, so overlay the URI that the user gave.
    pub job: Job,
    /// Its committed rounds, in order.
    pub rounds: Vec<Round>,
}

/// What happened to the jobs that a dead process had left running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Back in the queue.
    pub requeued: u64,
    /// Failed, because the process died too often while they ran.
    pub failed: u64,
}

impl Ledger {
    /// Claims the best queued job (of the preferred video, else the highest priority, else the oldest) and up to
    /// `limit - 1` waiting ones on the same video.
    ///
    /// Nothing is returned while a job that runs alone is running, or is the only one left while others run:
    /// ask again when one of them ends.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn claim(&self, claim: &Claim<'_>) -> Result<Vec<Claimed>, StoreError> {
        let fail = || StoreError::database("claim jobs");
        let mut transaction = self.writes.begin_with("begin immediate").await.map_err(fail())?;
        let mut claimed = Vec::new();
        for job in choose(&mut transaction, claim).await? {
            claimed.push(take(&mut transaction, claim.worker, job).await?);
        }
        transaction.commit().await.map_err(fail())?;
        Ok(claimed)
    }

    /// Holds back the waiting jobs of `batch` that are not `wanted`, and lets those go that are: a job file that was
    /// changed since its last run names fewer jobs than its batch has. How many are held back now.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Database`].
    pub async fn hold_others(
        &self,
        batch: &str,
        wanted: impl IntoIterator<Item = JobId>,
    ) -> Result<u64, StoreError> {
        let wanted: Vec<String> = wanted.into_iter().map(|job| job.to_string()).collect();
        let wanted = serde_json::to_string(&wanted).map_err(StoreError::corrupt("list of jobs"))?;
        sqlx::query(
            "update ledger_jobs set held = id not in (select value from json_each($2)) \
             where batch = $1 and held <> (id not in (select value from json_each($2)))",
        )
        .bind(batch)
        .bind(wanted)
        .execute(&self.writes)
        .await
        .map_err(StoreError::database("hold jobs back"))?;
        sqlx::query_scalar::<_, i64>(
            "select count(*) from ledger_jobs where batch = $1 and held = 1 and status = 'queued'",
        )
        .bind(batch)
        .fetch_one(&self.writes)
        .await
        .map(|held| held as u64)
        .map_err(StoreError::database("hold jobs back"))
    }

    /// Puts the running jobs of a dead process back into the queue. Only the holder of the home calls it, before
    /// it claims anything: whatever runs then belongs to a process that is gone.
    pub(crate) async fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        let fail = || StoreError::database("take over the jobs of a dead process");
        let mut transaction = self.writes.begin_with("begin immediate").await.map_err(fail())?;
        let running = sqlx::query(
            "update ledger_jobs set status = 'queued', epoch = epoch + 1, lease_holder = null, \
             crashes = case when exists (select 1 from ledger_rounds r where r.job_id = ledger_jobs.id and r.epoch = ledger_jobs.epoch) \
                       then 0 else crashes + 1 end \
             where status = 'running'",
        )
        .execute(&mut *transaction)
        .await
        .map_err(fail())?
        .rows_affected();
        let error = format!(
            "the process died {FAIL_AFTER} times while this job ran without finishing a round, the last {} times with no other job \
             beside it: its video may bring the program down (--retry-failed tries again)",
            FAIL_AFTER - ALONE_AFTER
        );
        let failed = sqlx::query(
            "update ledger_jobs set status = 'failed', error = $1, permanent = 1, ended_at = $2 \
             where status = 'queued' and crashes >= $3",
        )
        .bind(error)
        .bind(now_ms())
        .bind(FAIL_AFTER)
        .execute(&mut *transaction)
        .await
        .map_err(fail())?
        .rows_affected();
        transaction.commit().await.map_err(fail())?;
        Ok(Reclaimed { requeued: running - failed.min(running), failed })
    }
}

/// The jobs to take, best first; all about one video.
async fn choose(connection: &mut SqliteConnection, claim: &Claim<'_>) -> Result<Vec<SqliteRow>, StoreError> {
    if claim.limit == 0 || suspect_runs(connection).await? {
        return Ok(Vec::new());
    }
    if let Some(video) = claim.prefer_video {
        let rows = ready(connection, claim, Some(&video.redacted()), claim.limit).await?;
        if !rows.is_empty() {
            return Ok(rows);
        }
    }
    match ready(connection, claim, None, 1).await?.first() {
        Some(best) => ready(connection, claim, Some(column(best, "video_uri")?), claim.limit).await,
        None => suspect(connection, claim).await,
    }
}

async fn suspect_runs(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar("select exists (select 1 from ledger_jobs where status = 'running' and crashes >= $1)")
        .bind(ALONE_AFTER)
        .fetch_one(connection)
        .await
        .map_err(StoreError::database("claim jobs"))
}

/// Queued jobs that need not run alone.
async fn ready(
    connection: &mut SqliteConnection,
    claim: &Claim<'_>,
    video: Option<&str>,
    limit: usize,
) -> Result<Vec<SqliteRow>, StoreError> {
    // The filters are put into the text, not as `$1 is null or …`, so that each form finds its index.
    let batch = claim.batch.map_or("", |_| "and batch = $3");
    let one_video = video.map_or("", |_| "and video_uri = $4");
    let statement = format!(
        "select {JOB_COLUMNS} from ledger_jobs where status = 'queued' and held = 0 and crashes < $1 {batch} {one_video} \
         order by priority desc, seq limit $2"
    );
    sqlx::query(AssertSqlSafe(statement))
        .bind(ALONE_AFTER)
        .bind(limit as i64)
        .bind(claim.batch)
        .bind(video)
        .fetch_all(connection)
        .await
        .map_err(StoreError::database("claim jobs"))
}

/// The next job that must run alone, if nothing else is running.
async fn suspect(connection: &mut SqliteConnection, claim: &Claim<'_>) -> Result<Vec<SqliteRow>, StoreError> {
    let statement = job_query(
        "where status = 'queued' and held = 0 and ($1 is null or batch = $1) \
         and not exists (select 1 from ledger_jobs other where other.status = 'running') order by crashes, seq limit 1",
    );
    sqlx::query(AssertSqlSafe(statement))
        .bind(claim.batch)
        .fetch_all(connection)
        .await
        .map_err(StoreError::database("claim jobs"))
}

fn job_query(rest: &str) -> String {
    format!("select {JOB_COLUMNS} from ledger_jobs {rest}")
}

async fn take(
    connection: &mut SqliteConnection,
    worker: &str,
    row: SqliteRow,
) -> Result<Claimed, StoreError> {
    let id: JobId = parse_column(&row, "id")?;
    let epoch: u32 = sqlx::query_scalar(
        "update ledger_jobs set status = 'running', epoch = epoch + 1, attempts = attempts + 1, \
         lease_holder = $2, claimed_at = $3 where id = $1 and status = 'queued' returning epoch",
    )
    .bind(id.to_string())
    .bind(worker)
    .bind(now_ms())
    .fetch_one(&mut *connection)
    .await
    .map_err(StoreError::database("claim jobs"))?;
    let rounds = rounds_of(connection, id).await?;
    let mut job = Job::read(&row)?;
    job.status = spectemp_types::JobStatus::Running;
    job.epoch = epoch;
    Ok(Claimed { lease: Lease::new(id, epoch), job, rounds })
}
