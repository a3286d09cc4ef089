//! Retention over ledger and objects together.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    Store, StoreError,
    gc::{Freed, free_orphans},
};

/// Jobs of one transaction.
const JOBS: usize = 500;
/// Jobs whose objects are deleted at once.
const AT_ONCE: usize = 16;

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Jobs, with their rounds and answers.
    pub jobs: u64,
    /// Traces and thumbnails.
    pub objects: u64,
    /// Batches of which nothing was left.
    pub batches: u64,
}

impl Store {
    /// Forgets all jobs that ended longer than `keep` ago, and what belongs to them. Batches whose results or webhook are
    /// owed stay whole. Harmless beside other workers, and when it is cut off anywhere.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`], [`StoreError::Object`]: what was forgotten before stays so.
    pub async fn forget(&self, keep: Duration) -> Result<Forgotten, StoreError> {
        let mut forgotten = Forgotten::default();
        loop {
            let jobs = self.ledger().forget_jobs(keep, JOBS).await?;
            let last = jobs.len() < JOBS;
            forgotten.jobs += jobs.len() as u64;
            let deleting = stream::iter(jobs).map(|job| self.objects().delete_of(job));
            let deleted: Vec<u64> = deleting.buffer_unordered(AT_ONCE).try_collect().await?;
            forgotten.objects += deleted.iter().sum::<u64>();
            if last {
                break;
            }
        }
        forgotten.batches = self.ledger().forget_batches(keep).await?;
        Ok(forgotten)
    }

    /// Deletes traces and thumbnails older than `min_age` that nothing in the ledger points at: a death between an object
    /// and its row leaves them. The place of the objects must serve this ledger alone.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`], [`StoreError::Object`].
    pub async fn free_orphans(&self, min_age: Duration) -> Result<Freed, StoreError> {
        free_orphans(self.ledger(), self.objects(), min_age).await
    }
}
