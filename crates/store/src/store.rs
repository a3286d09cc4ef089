//! The ledger and the objects of one installation, as a worker or a server holds them.

use spectemp_types::Trace;

use crate::{Finished, Lease, Ledger, Objects, StoreError};

/// A ledger with its objects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    ledger: Ledger,
    objects: Objects,
}

impl Store {
    /// The two together.
    pub fn new(ledger: Ledger, objects: Objects) -> Self {
        Self { ledger, objects }
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Traces and thumbnails.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Ends a job with its answer: the trace object first, then answer and status in one transaction. A death in
    /// between leaves an object that nothing points at (`gc` frees it), never a row that points at nothing.
    ///
    /// # Errors
    /// [`StoreError::Stale`] changes nothing. After any other error (a full disk) the job has failed with it, unless
    /// even that could not be written: then it goes back to the queue when its lease ends.
    pub async fn finish(&self, lease: Lease, trace: &Trace) -> Result<(), StoreError> {
        let error = match self.try_finish(&lease, trace).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_stale() => return Err(error),
            Err(error) => error,
        };
        if let Err(second) = self.ledger.fail(lease, &error.to_string(), false).await {
            tracing::error!(job.id = %trace.job_id, error = %second, "cannot record a failed job");
        }
        Err(error)
    }

    /// As [`Self::finish`], but the caller keeps the lease and decides what an error comes to: a store that is away
    /// for a moment is no reason to fail a job.
    ///
    /// # Errors
    /// [`StoreError::Stale`] and all others change nothing in the ledger, unless the connection broke in the last
    /// moment: then a second try may be stale because the first one got through.
    pub async fn try_finish(&self, lease: &Lease, trace: &Trace) -> Result<(), StoreError> {
        let key = self.objects.put_trace(lease.epoch(), trace).await?;
        let finished = Finished {
            answer: &trace.answer,
            totals: &trace.totals,
            video: &trace.video,
            target: &trace.target,
            draft: trace.draft.as_ref(),
            trace: &key,
        };
        self.ledger.finish_by_ref(lease, finished).await
    }
}
