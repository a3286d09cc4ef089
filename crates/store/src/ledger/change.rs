//! Changes that need no lease: cancel, retry, priority.

use spectemp_types::{JobId, JobStatus};

use super::Ledger;
use crate::{
    StoreError,
    db::{Value, query},
};

/// What a job is set to when it is tried anew. Its committed rounds stay; a deadline that has passed does not.
const ANEW: &str = "status = 'queued', error = null, permanent = null, crashes = 0, tries = 0, ended_at = null, \
    ready_at = {now}, delayed = false, deadline_at = case when deadline_at > {now} then deadline_at end";
/// What a job is set to when it is cancelled; a worker that runs it finds its lease stale.
const CANCELLED: &str = "status = 'cancelled', epoch = epoch + 1, lease_holder = null, lease_expires_at = null, \
    ended_at = {now}";

impl Ledger {
    /// Cancels a job that has not ended; a worker that runs it finds its lease stale. Returns its status now.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], [`StoreError::Full`], [`StoreError::Database`].
    pub async fn cancel(&self, id: JobId) -> Result<JobStatus, StoreError> {
        let set = format!("{CANCELLED} where id = $1 and status in ('queued', 'running')");
        self.change("cancel a job", id, &set, None).await
    }

    /// Puts a failed or cancelled job back into the queue, committed rounds kept. Returns its status now.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], [`StoreError::Full`], [`StoreError::Database`].
    pub async fn retry(&self, id: JobId) -> Result<JobStatus, StoreError> {
        let set = format!("{ANEW} where id = $1 and status in ('failed', 'cancelled')");
        self.change("retry a job", id, &set, None).await
    }

    /// Changes the priority of a job that has not ended: higher ones are claimed first. Returns its status now.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], [`StoreError::Full`], [`StoreError::Database`].
    pub async fn set_priority(&self, id: JobId, priority: i32) -> Result<JobStatus, StoreError> {
        let set = "priority = $2 where id = $1 and status in ('queued', 'running')";
        self.change("change a job's priority", id, set, Some(priority.into())).await
    }

    /// Cancels all jobs of a batch that have not ended; how many. Manifests that are still read for it are dropped first, so
    /// that no further job comes of them.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Database`].
    pub async fn cancel_batch(&self, tenant: &str, batch: &str) -> Result<u64, StoreError> {
        self.drop_manifests(tenant, batch).await?;
        let set = format!("{CANCELLED} where tenant = $1 and batch = $2 and status in ('queued', 'running')");
        self.change_batch("cancel a batch", tenant, batch, &set).await
    }

    /// Puts the failed jobs of a batch back into the queue, committed rounds kept; how many.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Database`].
    pub async fn retry_failed(&self, tenant: &str, batch: &str) -> Result<u64, StoreError> {
        let set = format!("{ANEW} where tenant = $1 and batch = $2 and status = 'failed'");
        self.change_batch("retry failed jobs", tenant, batch, &set).await
    }

    async fn change(
        &self,
        what: &'static str,
        id: JobId,
        set: &str,
        value: Option<Value>,
    ) -> Result<JobStatus, StoreError> {
        let mut change = query(what, format!("update ledger_jobs set {set}")).bind(id);
        if let Some(value) = value {
            change = change.bind(value);
        }
        change.execute(&self.writes).await?;
        let row = query(what, "select status from ledger_jobs where id = $1")
            .bind(id)
            .optional(&self.writes)
            .await?;
        row.map_or_else(|| Err(StoreError::NoJob(id.to_string())), |row| row.parse("status"))
    }

    async fn change_batch(
        &self,
        what: &'static str,
        tenant: &str,
        batch: &str,
        set: &str,
    ) -> Result<u64, StoreError> {
        query(what, format!("update ledger_jobs set {set}"))
            .bind(tenant)
            .bind(batch)
            .execute(&self.writes)
            .await
    }
}
