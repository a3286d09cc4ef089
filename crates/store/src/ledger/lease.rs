//! What the holder of a lease may write. Every statement is guarded by the lease's epoch.

use spectemp_types::{Answer, JobId, ModelRevision, Round, Totals, TraceVideo};

use super::{Ledger, job::column, now_ms, reserve, round_row::insert_round};
use crate::{ObjectKey, StoreError};

/// The right to write about a job, from its claim until it ends, is given back or is taken over.
#[derive(Debug, PartialEq, Eq)]
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
        let row = sqlx::query(
            "select (status = 'running' and epoch = $2) as held, \
             (select count(*) from ledger_rounds where job_id = $1) as committed from ledger_jobs where id = $1",
        )
        .bind(lease.job.to_string())
        .bind(lease.epoch)
        .fetch_optional(&self.writes)
        .await
        .map_err(StoreError::database("commit a round"))?;
        match row {
            Some(row) if column::<bool>(&row, "held")? => Err(StoreError::Gap {
                job: lease.job,
                round: round.no,
                committed: column(&row, "committed")?,
            }),
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
        let fail = || StoreError::database("commit an answer");
        let json = |what, value: serde_json::Result<String>| value.map_err(StoreError::corrupt(what));
        let now = now_ms();
        let mut transaction = self.writes.begin_with("begin immediate").await.map_err(fail())?;
        let ended = sqlx::query(
            "update ledger_jobs set status = 'answered', error = null, permanent = null, lease_holder = null, ended_at = $3 \
             where id = $1 and status = 'running' and epoch = $2",
        )
        .bind(lease.job.to_string())
        .bind(lease.epoch)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(fail())?;
        if ended.rows_affected() == 0 {
            return Err(lease.stale());
        }
        sqlx::query(
            "insert into ledger_answers \
             (job_id, epoch, answer, choice, confidence, evidence, totals, video, target, draft, trace, answered_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(lease.job.to_string())
        .bind(lease.epoch)
        .bind(&finished.answer.text)
        .bind(finished.answer.choice.map(String::from))
        .bind(finished.answer.confidence)
        .bind(json("evidence", serde_json::to_string(&finished.answer.evidence))?)
        .bind(json("totals", serde_json::to_string(finished.totals))?)
        .bind(json("video", serde_json::to_string(finished.video))?)
        .bind(json("target", serde_json::to_string(finished.target))?)
        .bind(finished.draft.map(|draft| json("draft", serde_json::to_string(draft))).transpose()?)
        .bind(finished.trace.to_string())
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(fail())?;
        transaction.commit().await.map_err(fail())
    }

    /// Ends the job with an error; its committed rounds stay, for [`Self::retry_failed`].
    /// `permanent` says that another try cannot help as long as the video or the question stays.
    /// On a full disk the reserve is given up for it.
    ///
    /// # Errors
    /// [`StoreError::Stale`] changes nothing; [`StoreError::Full`], [`StoreError::Database`].
    pub async fn fail(&self, lease: Lease, error: &str, permanent: bool) -> Result<(), StoreError> {
        match self.try_fail(&lease, error, permanent).await {
            Err(StoreError::Full { .. }) if reserve::give_up(&self.path).is_ok() => {
                self.try_fail(&lease, error, permanent).await
            }
            result => result,
        }
    }

    async fn try_fail(&self, lease: &Lease, error: &str, permanent: bool) -> Result<(), StoreError> {
        let failed = sqlx::query(
            "update ledger_jobs set status = 'failed', error = $3, permanent = $4, lease_holder = null, ended_at = $5 \
             where id = $1 and status = 'running' and epoch = $2",
        )
        .bind(lease.job.to_string())
        .bind(lease.epoch)
        .bind(error)
        .bind(permanent)
        .bind(now_ms())
        .execute(&self.writes)
        .await
        .map_err(StoreError::database("record a failure"))?;
        if failed.rows_affected() == 1 { Ok(()) } else { Err(lease.stale()) }
    }

    /// Gives the job back to the queue, with its committed rounds and without a crash on its account.
    /// On a full disk the reserve is given up for it.
    ///
    /// # Errors
    /// [`StoreError::Stale`] changes nothing; [`StoreError::Full`], [`StoreError::Database`].
    pub async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        match self.try_release(&lease).await {
            Err(StoreError::Full { .. }) if reserve::give_up(&self.path).is_ok() => {
                self.try_release(&lease).await
            }
            result => result,
        }
    }

    async fn try_release(&self, lease: &Lease) -> Result<(), StoreError> {
        let released = sqlx::query(
            "update ledger_jobs set status = 'queued', lease_holder = null where id = $1 and status = 'running' and epoch = $2",
        )
        .bind(lease.job.to_string())
        .bind(lease.epoch)
        .execute(&self.writes)
        .await
        .map_err(StoreError::database("give a job back"))?;
        if released.rows_affected() == 1 { Ok(()) } else { Err(lease.stale()) }
    }
}
