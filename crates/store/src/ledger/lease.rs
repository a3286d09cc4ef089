//! What the holder of a lease may write. Every statement is guarded by the lease's epoch.

use std::{collections::HashSet, time::Duration};

use spectemp_types::{Answer, JobId, ModelRevision, Round, Totals, TraceVideo};

use super::{Ledger, job::PROGRESSED, reserve, round_row::insert_round};
use crate::{
    ObjectKey, StoreError,
    db::{Value, query},
};

/// The right to write about a job, from its claim until it ends, is given back or is taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    job: JobId,
    epoch: u32,
}

/// Everything that an answer's row holds.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// The answer.
    pub answer: &'a Answer,
    /// Sums over its rounds.
    pub totals: &'a Totals,
    /// The version of the video that was seen.
    pub video: &'a TraceVideo,
    /// The target's weights.
    pub target: &'a ModelRevision,
    /// The draft's weights, where there is one.
    pub draft: Option<&'a ModelRevision>,
    /// The trace object, which is already written.
    pub trace: &'a ObjectKey,
}

impl Lease {
    pub(crate) fn new(job: JobId, epoch: u32) -> Self {
        Self { job, epoch }
    }

    /// The job.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// The claim's number: one more than that of any earlier claim of the job.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// An error unless the guarded statement found its row.
    fn held(&self, rows: u64) -> Result<(), StoreError> {
        if rows == 1 { Ok(()) } else { Err(self.stale()) }
    }

    pub(super) fn stale(&self) -> StoreError {
        StoreError::Stale { job: self.job, epoch: self.epoch }
    }
}

impl Ledger {
    /// Commits a round: one statement, synced to the disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::Stale`] and [`StoreError::Gap`] change nothing; [`StoreError::Full`], [`StoreError::Database`].
    pub async fn checkpoint(&self, lease: &Lease, round: &Round) -> Result<(), StoreError> {
        let inserted = insert_round(&self.writes, lease, round).await?;
        if inserted {
            return Ok(());
        }
        let row = query(
            "commit a round",
            "select (status = 'running' and epoch = $2) as held, \
             (select count(*) from ledger_rounds where job_id = $1) as committed from ledger_jobs where id = $1",
        )
        .bind(lease.job)
        .bind(lease.epoch)
        .optional(&self.writes)
        .await?;
        match row {
            Some(row) if row.get::<bool>("held")? => {
                Err(StoreError::Gap { job: lease.job, round: round.no, committed: row.number("committed")? })
            }
            _ => Err(lease.stale()),
        }
    }

    /// Ends the job with its answer: status and answer row in one transaction. The trace object comes first,
    /// see [`crate::Home::finish`].
    ///
    /// # Errors
    /// [`StoreError::Stale`] changes nothing; [`StoreError::Full`], [`StoreError::Database`].
    pub async fn finish(&self, lease: Lease, finished: Finished<'_>) -> Result<(), StoreError> {
        self.finish_by_ref(&lease, finished).await
    }

    /// As [`Self::finish`], for a caller that turns a failure into [`Self::fail`].
    pub(crate) async fn finish_by_ref(
        &self,
        lease: &Lease,
        finished: Finished<'_>,
    ) -> Result<(), StoreError> {
        const WHAT: &str = "commit an answer";
        let answer = finished.answer;
        let mut transaction = self.writes.begin(WHAT).await?;
        let ended = query(
            WHAT,
            "update ledger_jobs set status = 'answered', error = null, permanent = null, lease_holder = null, \
             lease_expires_at = null, ended_at = {now} where id = $1 and status = 'running' and epoch = $2",
        )
        .bind(lease.job)
        .bind(lease.epoch)
        .execute(&mut transaction)
        .await?;
        if ended == 0 {
            return Err(lease.stale());
        }
        query(
            WHAT,
            "insert into ledger_answers \
             (job_id, epoch, answer, choice, confidence, evidence, totals, video, target, draft, trace, answered_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, {now})",
        )
        .bind(lease.job)
        .bind(lease.epoch)
        .bind(&answer.text)
        .bind(answer.choice.map(String::from))
        .bind(answer.confidence)
        .bind(Value::jsonb("evidence", &answer.evidence)?)
        .bind(Value::jsonb("totals", finished.totals)?)
        .bind(Value::jsonb("video", finished.video)?)
        .bind(Value::jsonb("target", finished.target)?)
        .bind(finished.draft.map_or(Ok(Value::Jsonb(None)), |draft| Value::jsonb("draft", draft))?)
        .bind(finished.trace.to_string())
        .execute(&mut transaction)
        .await?;
        transaction.commit(WHAT).await
    }

    /// Ends the job with an error; its committed rounds stay, for [`Self::retry_failed`].
    /// `permanent` says that another try cannot help as long as the video or the question stays.
    /// On a full disk the reserve is given up for it.
    ///
    /// # Errors
    /// [`StoreError::Stale`] changes nothing; [`StoreError::Full`], [`StoreError::Database`].
    pub async fn fail(&self, lease: Lease, error: &str, permanent: bool) -> Result<(), StoreError> {
        match self.try_fail(&lease, error, permanent).await {
            Err(StoreError::Full { .. }) if self.give_up_reserve() => {
                self.try_fail(&lease, error, permanent).await
            }
            result => result,
        }
    }

    async fn try_fail(&self, lease: &Lease, error: &str, permanent: bool) -> Result<(), StoreError> {
        let failed = query(
            "record a failure",
            "update ledger_jobs set status = 'failed', error = $3, permanent = $4, lease_holder = null, \
             lease_expires_at = null, ended_at = {now} where id = $1 and status = 'running' and epoch = $2",
        )
        .bind(lease.job)
        .bind(lease.epoch)
        .bind(error)
        .bind(permanent)
        .execute(&self.writes)
        .await?;
        lease.held(failed)
    }

    /// Gives the job back to the queue, with its committed rounds and without a crash on its account.
    /// On a full disk the reserve is given up for it.
    ///
    /// # Errors
    /// [`StoreError::Stale`] changes nothing; [`StoreError::Full`], [`StoreError::Database`].
    pub async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        match self.try_release(&lease).await {
            Err(StoreError::Full { .. }) if self.give_up_reserve() => self.try_release(&lease).await,
            result => result,
        }
    }

    async fn try_release(&self, lease: &Lease) -> Result<(), StoreError> {
        let released = query(
            "give a job back",
            format!(
                "update ledger_jobs as j set status = 'queued', lease_holder = null, lease_expires_at = null, \
                 ready_at = {{now}}, delayed = false, tries = case when {PROGRESSED} then 0 else tries end \
                 where id = $1 and status = 'running' and epoch = $2"
            ),
        )
        .bind(lease.job)
        .bind(lease.epoch)
        .execute(&self.writes)
        .await?;
        lease.held(released)
    }

    /// Gives the job back after a passing fault: it waits in the queue, but is not claimed before `after` has passed.
    /// [`super::Job::tries`] counts these since the last committed round.
    ///
    /// # Errors
    /// [`StoreError::Stale`] changes nothing; [`StoreError::Full`], [`StoreError::Database`].
    pub async fn put_back(&self, lease: Lease, error: &str, after: Duration) -> Result<(), StoreError> {
        let put_back = query(
            "put a job back",
            format!(
                "update ledger_jobs as j set status = 'queued', lease_holder = null, lease_expires_at = null, error = $3, \
                 ready_at = {{now}} + $4, delayed = $4 > 0, tries = case when {PROGRESSED} then 1 else tries + 1 end \
                 where id = $1 and status = 'running' and epoch = $2"
            ),
        )
        .bind(lease.job)
        .bind(lease.epoch)
        .bind(error)
        .bind(after.as_millis() as i64)
        .execute(&self.writes)
        .await?;
        lease.held(put_back)
    }

    /// Prolongs leases: each ends `lease` from now. The jobs whose lease is lost (overtaken, cancelled, ended) come back.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn heartbeat(&self, leases: &[&Lease], lease: Duration) -> Result<Vec<JobId>, StoreError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        // Sorted, so that two of them never wait for each other's rows.
        let mut rows: Vec<(String, u32)> =
            leases.iter().map(|lease| (lease.job.to_string(), lease.epoch)).collect();
        rows.sort_unstable();
        let rows: Vec<_> =
            rows.into_iter().map(|(id, epoch)| serde_json::json!({"id": id, "epoch": epoch})).collect();
        let held = query(
            "prolong leases",
            "update ledger_jobs as j set lease_expires_at = {now} + $2 from {rows_1} \
             where j.id = (e.value ->> 'id'){as_uuid} and j.epoch = cast(e.value ->> 'epoch' as bigint) \
             and j.status = 'running' returning id, epoch",
        )
        .bind(Value::json("leases", &rows)?)
        .bind(lease.as_millis() as i64)
        .all(&self.writes)
        .await?;
        let held: HashSet<(JobId, u32)> = held
            .iter()
            .map(|row| Ok((row.id("id")?, row.number("epoch")?)))
            .collect::<Result<_, StoreError>>()?;
        let lost = leases.iter().filter(|lease| !held.contains(&(lease.job, lease.epoch)));
        Ok(lost.map(|lease| lease.job).collect())
    }

    fn give_up_reserve(&self) -> bool {
        self.path.as_ref().is_some_and(|path| reserve::give_up(path).is_ok())
    }
}
