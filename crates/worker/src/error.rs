//! What ends a run, and what ends one job of it.

use std::time::Duration;

use spectemp_engine::{ErrorClass, SessionError};
use spectemp_store::StoreError;
use spectemp_video::VideoError;

/// Why a run could not go on. The jobs that were running are back in the queue or have failed with this.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The ledger or the objects can no longer be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A defect of the program or of the machine.
    #[error("{0}")]
    Broken(String),
}

/// Why an attempt at a job ended without an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Video(#[from] VideoError),
    /// What the user must change: a location, a record that cannot be kept.
    #[error("{0}")]
    Permanent(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run stops; the job goes back to the queue.
    #[error("job was interrupted")]
    Interrupted,
}

/// What to do about a [`JobError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Try again after a while.
    Retry,
    /// The job has failed.
    Fail,
    /// The job has failed and no other one would fare better.
    FailAndStop,
    /// Another process or its owner took the job away: nothing may be written about it.
    LetGo,
    /// Give the job back.
    Release,
}

impl JobError {
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Interrupted => Remedy::Release,
            Self::Session(error) => match error.class() {
                ErrorClass::Transient => Remedy::Retry,
                ErrorClass::Cancelled => Remedy::Release,
                ErrorClass::Permanent => Remedy::Fail,
            },
            Self::Video(VideoError::Cancelled { .. }) => Remedy::Release,
            Self::Video(error) if error.is_transient() => Remedy::Retry,
            Self::Store(error) if error.is_stale() => Remedy::LetGo,
            Self::Store(_) => Remedy::FailAndStop,
            Self::Video(_) | Self::Permanent(_) => Remedy::Fail,
        }
    }
}

/// How long to wait before try `no` (from 1): 1, 2, 4 … times `first`, at most a minute.
pub(crate) fn backoff(first: Duration, no: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(no.saturating_sub(1))).min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_at_a_minute() {
        let second = Duration::from_secs(1);
        let waits: Vec<u64> = [1, 2, 3, 7, 40].iter().map(|&no| backoff(second, no).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 60, 60]);
    }

    #[test]
    fn only_passing_faults_are_tried_again() {
        let store = VideoError::Store { uri: "v".into(), at: 0, length: 1, cause: "reset".into() };
        assert_eq!(JobError::Video(store).remedy(), Remedy::Retry);
        assert_eq!(JobError::Video(VideoError::Empty { uri: "v".into() }).remedy(), Remedy::Fail);
        assert_eq!(JobError::Session(SessionError::Cancelled).remedy(), Remedy::Release);
        assert_eq!(JobError::Session(SessionError::NoDraft { strategy: "spectemp" }).remedy(), Remedy::Fail);
        let full = StoreError::Full { what: "the ledger".into() };
        assert_eq!(JobError::Store(full).remedy(), Remedy::FailAndStop);
    }
}
