//! Leases that ran out, and processes that died.
//!
//! A death counts against a job only if it committed no round since its claim. After [`super::claim::ALONE_AFTER`]
//! of them it runs alone, and only deaths while it does so lead to its failure: a killed worker must not condemn the
//! other jobs that it ran. How many that takes is an option, because who runs the program on one machine may well kill
//! it again and again within one slow round, while a worker of a cluster is rarely killed on purpose.

use super::{Ledger, claim::ALONE_AFTER, claim::READY, job::PROGRESSED};
use crate::{StoreError, db::query};

/// Rows of one sweep; the next one takes the rest.
const MOST: u32 = 10_000;

/// What happened to the jobs of dead processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Back in the queue.
    pub requeued: u64,
    /// Failed: the process died too often while they ran.
    pub dead: u64,
    /// Failed: their deadline has passed.
    pub late: u64,
}

impl Ledger {
    /// Takes back the jobs whose lease has run out, and fails those whose deadline has passed. Anyone may call it at
    /// any time.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn expire(&self) -> Result<Reclaimed, StoreError> {
        let late = query(
            "fail jobs past their deadline",
            format!(
                "update ledger_jobs set status = 'failed', error = 'its deadline has passed', permanent = false, \
                 epoch = epoch + 1, lease_holder = null, lease_expires_at = null, ended_at = {{now}} \
                 where id in (select id from ledger_jobs where status in ('queued', 'running') \
                 and deadline_at <= {{now}} order by deadline_at limit {MOST} {{skip_locked}})"
            ),
        )
        .execute(&self.writes)
        .await?;
        Ok(Reclaimed { late, ..self.take_back("lease_expires_at <= {now}").await? })
    }

    /// Takes all running jobs back. Only the holder of a home calls it, before it claims anything: whatever runs then
    /// belongs to a process that is gone.
    pub(crate) async fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        self.take_back("true").await
    }

    /// Waiting jobs that could have been claimed for longer than `older_than`, for a sweep that wakes workers again.
    /// It looks at the thousand next ones only: whether somebody must be woken, not how long the queue is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn waiting(&self, older_than: std::time::Duration) -> Result<u64, StoreError> {
        let row = query(
            "look for waiting jobs",
            format!(
                "select count(*) as waiting from ( \
                 select ready_at from (select ready_at from ledger_jobs where {READY} order by priority desc, seq limit 1000) ready \
                 union all select ready_at from (select ready_at from ledger_jobs \
                   where status = 'queued' and delayed = true and held = false order by ready_at limit 1000) delayed \
                 union all select ready_at from (select ready_at from ledger_jobs \
                   where status = 'queued' and held = false and delayed = false and crashes >= 2 order by crashes, seq limit 1000) alone \
                 ) next where ready_at <= {{now}} - $1"
            ),
        )
        .bind(older_than.as_millis() as i64)
        .one(&self.reads)
        .await?;
        row.number("waiting")
    }

    /// Running jobs that are `lost` go back to the queue, or fail where this was one death too many.
    async fn take_back(&self, lost: &str) -> Result<Reclaimed, StoreError> {
        let fatal = ALONE_AFTER + self.deaths_alone;
        let error = format!(
            "the process died {fatal} times while this job ran without finishing a round, the last {} times with no other job \
             beside it: its video may bring the program down (--retry-failed tries again)",
            self.deaths_alone
        );
        let statement = format!(
            "update ledger_jobs as j set epoch = epoch + 1, lease_holder = null, lease_expires_at = null, \
             ready_at = {{now}}, delayed = false, \
             status = case when not {PROGRESSED} and crashes + 1 >= $1 then 'failed' else 'queued' end, \
             error = case when not {PROGRESSED} and crashes + 1 >= $1 then $2 else error end, \
             permanent = case when not {PROGRESSED} and crashes + 1 >= $1 then true else permanent end, \
             ended_at = case when not {PROGRESSED} and crashes + 1 >= $1 then {{now}} else ended_at end, \
             tries = case when {PROGRESSED} then 0 else tries end, \
             crashes = case when {PROGRESSED} then 0 else crashes + 1 end \
             where id in (select id from ledger_jobs where status = 'running' and {lost} limit {MOST} {{skip_locked}}) \
             returning status"
        );
        let mut reclaimed = Reclaimed::default();
        loop {
            let rows = query("take over the jobs of a dead process", statement.clone())
                .bind(fatal)
                .bind(&error)
                .all(&self.writes)
                .await?;
            for row in &rows {
                match row.get::<&str>("status")? {
                    "failed" => reclaimed.dead += 1,
                    _ => reclaimed.requeued += 1,
                }
            }
            if rows.len() < MOST as usize {
                return Ok(reclaimed);
            }
        }
    }
}
