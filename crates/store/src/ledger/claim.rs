//! Claiming: a queued job becomes running and its claimer gets a lease.
//!
//! A process that dies counts against the jobs it had running only where they committed no round since their
//! claim, see `expire.rs`. A job that was running at [`ALONE_AFTER`] such deaths in a row is suspected to bring the
//! program down: from then on it runs after all others and alone in its worker, so that it cannot take others with it
//! and no other death is blamed on it. Where several workers share a ledger there may always be others; so a worker
//! that runs nothing takes a suspect first once it has waited for [`PATIENCE_MS`].

use std::{collections::HashMap, time::Duration};

use spectemp_types::{JobId, JobStatus, Round, VideoUri};

use super::{
    Job, Lease, Ledger,
    job::job_columns,
    read::{ROUND_COLUMNS, read_round},
};
use crate::{
    LedgerKind, StoreError,
    db::{Row, Transaction, Value, query},
};

/// Deaths in a row after which a job runs alone. The statements and their indexes have it as a literal.
pub(super) const ALONE_AFTER: u32 = 2;
/// How long a suspect waits for a moment without other jobs.
const PATIENCE_MS: i64 = 60_000;
/// Jobs whose wait ends in one claim.
const MOST_DUE: u32 = 500;
const WHAT: &str = "claim jobs";

/// Of `ledger_jobs`: may be claimed beside others. The first line is the predicate of the partial indexes.
pub(super) const READY: &str = "status = 'queued' and held = false and delayed = false and crashes < 2 \
    and (deadline_at is null or deadline_at > {now})";

/// What to claim.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Only of this batch.
    pub batch: Option<&'a str>,
    /// Name of the claimer, another one for each start of a process: jobs that run alone do so among those of one name.
    pub worker: &'a str,
    /// Most jobs to claim; they all are about one video and of one tenant.
    pub limit: usize,
    /// A video whose bytes and frames are at hand: its jobs come first.
    pub prefer_video: Option<&'a VideoUri>,
    /// How long the lease holds without [`Ledger::heartbeat`]; `None`: for as long as the holder of the home lives.
    pub lease: Option<Duration>,
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

impl Ledger {
    /// Claims the best queued job (of the preferred video, else the highest priority, else the oldest) and up to
    /// `limit - 1` waiting ones of the same tenant on the same video.
    ///
    /// Nothing is returned while the worker runs a job that runs alone, or where only such jobs are left while it runs
    /// others: ask again when one of them ends.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn claim(&self, claim: &Claim<'_>) -> Result<Vec<Claimed>, StoreError> {
        let mut transaction = self.writes.begin(WHAT).await?;
        let rows = choose(&mut transaction, claim).await?;
        let claimed = if rows.is_empty() { Vec::new() } else { take(&mut transaction, claim, &rows).await? };
        transaction.commit(WHAT).await?;
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
        const WHAT: &str = "hold jobs back";
        query(
            WHAT,
            "update ledger_jobs set held = id not in {ids_2} \
             where batch = $1 and held <> (id not in {ids_2})",
        )
        .bind(batch)
        .bind(Value::ids(wanted))
        .execute(&self.writes)
        .await?;
        let row = query(
            WHAT,
            "select count(*) as held from ledger_jobs where batch = $1 and held = true and status = 'queued'",
        )
        .bind(batch)
        .one(&self.writes)
        .await?;
        row.number("held")
    }
}

/// The jobs to take, best first; all about one video.
async fn choose(transaction: &mut Transaction, claim: &Claim<'_>) -> Result<Vec<Row>, StoreError> {
    if claim.limit == 0 {
        return Ok(Vec::new());
    }
    let idle = match standing(transaction, claim).await? {
        Standing::Alone => return Ok(Vec::new()),
        Standing::Idle => true,
        Standing::Busy => false,
    };
    if idle && claim.lease.is_some() {
        let overdue = suspect(transaction, claim, PATIENCE_MS).await?;
        if !overdue.is_empty() {
            return Ok(overdue);
        }
    }
    let preferred = claim.prefer_video.map(VideoUri::redacted);
    let mut best = None;
    if let Some(video) = &preferred {
        best = ready(transaction, claim, Some(video), None, 1).await?.pop();
    }
    if best.is_none() {
        best = ready(transaction, claim, None, None, 1).await?.pop();
    }
    match best {
        Some(best) if claim.limit == 1 => Ok(vec![best]),
        Some(best) => {
            let (video, tenant): (String, String) = (best.get("video_uri")?, best.get("tenant")?);
            ready(transaction, claim, Some(&video), Some(&tenant), claim.limit).await
        }
        None if idle => suspect(transaction, claim, 0).await,
        None => Ok(Vec::new()),
    }
}

enum Standing {
    /// The worker runs nothing.
    Idle,
    /// It runs jobs.
    Busy,
    /// It runs one that runs alone.
    Alone,
}

/// What the worker runs. Jobs whose wait is over become ready on the way.
async fn standing(transaction: &mut Transaction, claim: &Claim<'_>) -> Result<Standing, StoreError> {
    if transaction.kind() == LedgerKind::Postgres {
        // One claim of a worker at a time: else two of them could each think that it runs nothing.
        query(WHAT, "select pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(format!("spectemp claim {}", claim.worker))
            .execute(&mut *transaction)
            .await?;
    }
    let row = query(
        WHAT,
        "select count(*) as running, count(*) filter (where crashes >= 2) as alone, \
         exists (select 1 from ledger_jobs where status = 'queued' and delayed = true and ready_at <= {now}) as due \
         from ledger_jobs where status = 'running' and lease_holder = $1",
    )
    .bind(claim.worker)
    .one(&mut *transaction)
    .await?;
    if row.get("due")? {
        let statement = format!(
            "update ledger_jobs set delayed = false where id in (select id from ledger_jobs \
             where status = 'queued' and delayed = true and ready_at <= {{now}} order by ready_at limit {MOST_DUE} {{skip_locked}})"
        );
        query(WHAT, statement).execute(&mut *transaction).await?;
    }
    Ok(match (row.number("running")?, row.number("alone")?) {
        (0_u64, _) => Standing::Idle,
        (_, 0_u64) => Standing::Busy,
        _ => Standing::Alone,
    })
}

/// Queued jobs that need not run alone, best first.
async fn ready(
    transaction: &mut Transaction,
    claim: &Claim<'_>,
    video: Option<&str>,
    tenant: Option<&str>,
    limit: usize,
) -> Result<Vec<Row>, StoreError> {
    // Filters and limit are put into the text, not as `$1 is null or …`, so that each form finds its index.
    let mut statement = format!("select {} from ledger_jobs j where {READY}", job_columns());
    let mut values = Vec::new();
    for (column, value) in [("batch", claim.batch), ("video_uri", video), ("tenant", tenant)] {
        if let Some(value) = value {
            values.push(value);
            statement += &format!(" and {column} = ${}", values.len());
        }
    }
    statement += &format!(" order by priority desc, seq limit {limit} {{skip_locked_job}}");
    values.into_iter().fold(query(WHAT, statement), |query, value| query.bind(value)).all(transaction).await
}

/// The next job that must run alone, if it has waited for so long.
async fn suspect(
    transaction: &mut Transaction,
    claim: &Claim<'_>,
    waited_ms: i64,
) -> Result<Vec<Row>, StoreError> {
    let batch = claim.batch.map_or("", |_| "and batch = $2");
    let statement = format!(
        "select {} from ledger_jobs j where status = 'queued' and held = false and delayed = false and crashes >= 2 \
         and (deadline_at is null or deadline_at > {{now}}) and ready_at <= {{now}} - $1 {batch} \
         order by crashes, seq limit 1 {{skip_locked_job}}",
        job_columns()
    );
    let query = query(WHAT, statement).bind(waited_ms);
    match claim.batch {
        Some(batch) => query.bind(batch),
        None => query,
    }
    .all(transaction)
    .await
}

/// Makes the jobs of `rows` the claimer's.
async fn take(
    transaction: &mut Transaction,
    claim: &Claim<'_>,
    rows: &[Row],
) -> Result<Vec<Claimed>, StoreError> {
    let jobs: Vec<Job> = rows.iter().map(Job::read).collect::<Result<_, _>>()?;
    let taken = query(
        WHAT,
        "update ledger_jobs set status = 'running', epoch = epoch + 1, attempts = attempts + 1, lease_holder = $2, \
         lease_expires_at = {now} + $3, claimed_at = {now} where id in {ids_1} and status = 'queued'",
    )
    .bind(Value::ids(jobs.iter().map(|job| job.id)))
    .bind(claim.worker)
    .bind(claim.lease.map(|lease| lease.as_millis() as i64))
    .execute(&mut *transaction)
    .await?;
    if taken != jobs.len() as u64 {
        return Err(StoreError::Database { what: WHAT, cause: "a chosen job was not waiting".to_owned() });
    }
    let mut rounds = rounds_of_all(transaction, &jobs).await?;
    let claimed = |mut job: Job| {
        job.status = JobStatus::Running;
        job.epoch += 1;
        job.attempts += 1;
        job.worker = Some(claim.worker.to_owned());
        let rounds = rounds.remove(&job.id).unwrap_or_default();
        Claimed { lease: Lease::new(job.id, job.epoch), job, rounds }
    };
    Ok(jobs.into_iter().map(claimed).collect())
}

/// The committed rounds of the jobs, in order.
async fn rounds_of_all(
    transaction: &mut Transaction,
    jobs: &[Job],
) -> Result<HashMap<JobId, Vec<Round>>, StoreError> {
    let mut rounds: HashMap<JobId, Vec<Round>> = HashMap::new();
    if jobs.iter().all(|job| job.rounds == 0) {
        return Ok(rounds);
    }
    let statement =
        format!("select {ROUND_COLUMNS} from ledger_rounds where job_id in {{ids_1}} order by job_id, no");
    let ids = jobs.iter().filter(|job| job.rounds > 0).map(|job| job.id);
    for row in query(WHAT, statement).bind(Value::ids(ids)).all(transaction).await? {
        let (job, round) = read_round(&row)?;
        rounds.entry(job).or_default().push(round);
    }
    Ok(rounds)
}
