//! Writes down how a job ended.

use std::sync::Arc;

use spectemp_store::{Lease, StoreError};
use spectemp_types::Trace;

use crate::{
    error::{JobError, Patience, Remedy, backoff},
    event::{JobName, Outcome},
    hold::Hold,
    shared::{Shared, patiently},
};

/// Writes down how the job ended after so many tries. The error is one that ends the whole run.
pub(crate) async fn write_end(
    shared: &Shared,
    hold: &Hold,
    lease: Lease,
    name: &JobName,
    (ended, tries): (Result<Trace, JobError>, u32),
) -> (Outcome, Result<(), JobError>) {
    let ending = Ending { shared, hold, name };
    let error = match ended {
        Ok(trace) => match ending.answer(&lease, &trace).await {
            Ok(()) => return (Outcome::Answered(Arc::new(trace)), Ok(())),
            Err(error) => error,
        },
        Err(error) => error,
    };
    ending.without_answer(lease, error, tries).await
}

struct Ending<'a> {
    shared: &'a Shared,
    hold: &'a Hold,
    name: &'a JobName,
}

impl Ending<'_> {
    async fn answer(&self, lease: &Lease, trace: &Trace) -> Result<(), JobError> {
        let store = &self.shared.store;
        Ok(patiently(self.shared, self.hold, || store.try_finish(lease, trace)).await?)
    }

    async fn without_answer(
        &self,
        lease: Lease,
        error: JobError,
        tries: u32,
    ) -> (Outcome, Result<(), JobError>) {
        let text = error.to_string();
        let mut remedy = error.remedy(self.shared.patience);
        if self.hold.is_lost() {
            remedy = Remedy::LetGo;
        }
        let (outcome, written) = match remedy {
            Remedy::LetGo => {
                tracing::info!(job.id = %self.name.job, "lease is lost, the job is dropped");
                (Outcome::Lost, Ok(()))
            }
            Remedy::Release => (Outcome::Released, self.release(lease).await),
            Remedy::Retry if self.may_put_back(tries) => self.put_back(lease, &text, tries).await,
            Remedy::Retry | Remedy::Fail | Remedy::FailAndStop => {
                tracing::info!(job.id = %self.name.job, error = text, "job failed");
                let permanent = remedy == Remedy::Fail;
                (Outcome::Failed(text.clone()), self.fail(lease, &text, permanent).await)
            }
        };
        match (remedy, written) {
            (_, Err(stale)) if stale.is_stale() => (Outcome::Lost, Ok(())),
            (_, Err(second)) if self.shared.patience == Patience::PutBack => {
                // Its lease ends by itself, and the job goes back to the queue then.
                tracing::warn!(job.id = %self.name.job, error = %second, "cannot write down how a job ended");
                (Outcome::Lost, Ok(()))
            }
            (_, Err(second)) => (outcome, Err(second.into())),
            (Remedy::FailAndStop, Ok(())) => (outcome, Err(error)),
            (_, Ok(())) => (outcome, Ok(())),
        }
    }

    fn may_put_back(&self, tries: u32) -> bool {
        self.shared.patience == Patience::PutBack && tries <= self.shared.options.retries
    }

    async fn put_back(&self, lease: Lease, error: &str, tries: u32) -> (Outcome, Result<(), StoreError>) {
        let after = backoff(self.shared.options.first_wait, tries, self.shared.longest_wait);
        tracing::warn!(
            job.id = %self.name.job, error, job.tries = tries, wait_ms = after.as_millis() as u64,
            "job goes back to the queue for a while"
        );
        let ledger = self.shared.store.ledger();
        let written =
            patiently(self.shared, self.hold, || ledger.put_back(lease.clone(), error, after)).await;
        (Outcome::PutBack { error: error.to_owned(), after }, written)
    }

    async fn fail(&self, lease: Lease, error: &str, permanent: bool) -> Result<(), StoreError> {
        let ledger = self.shared.store.ledger();
        patiently(self.shared, self.hold, || ledger.fail(lease.clone(), error, permanent)).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        let ledger = self.shared.store.ledger();
        patiently(self.shared, self.hold, || ledger.release(lease.clone())).await
    }
}
