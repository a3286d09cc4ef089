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
    /// Options that cannot work.
    #[error("{0}")]
    Options(String),
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
    /// The lease was overtaken, cancelled, or could not be prolonged in time.
    #[error("lease of the job is lost")]
    Lost,
}

/// What happens after a passing fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The job waits where it runs. A ledger that fails ends the run: on one machine that is a full or broken disk.
    Wait,
    /// The job goes back to the queue for a while and other ones run; so it does where ledger or objects fail: a
    /// server that is away comes back.
    PutBack,
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
    pub(crate) fn remedy(&self, patience: Patience) -> Remedy {
        match self {
            Self::Interrupted => Remedy::Release,
            Self::Lost => Remedy::LetGo,
            Self::Session(error) => match error.class() {
                ErrorClass::Transient => Remedy::Retry,
                ErrorClass::Cancelled => Remedy::Release,
                ErrorClass::Permanent => Remedy::Fail,
            },
            Self::Video(VideoError::Cancelled { .. }) => Remedy::Release,
            Self::Video(error) if error.is_transient() => Remedy::Retry,
            Self::Store(error) if error.is_stale() => Remedy::LetGo,
            Self::Store(error) => match patience {
                Patience::Wait => Remedy::FailAndStop,
                Patience::PutBack => of_store(error),
            },
            Self::Video(_) | Self::Permanent(_) => Remedy::Fail,
        }
    }
}

/// On a server most faults of the store pass; what is wrong with the job itself does not.
fn of_store(error: &StoreError) -> Remedy {
    match error {
        StoreError::Corrupt { .. } | StoreError::Location(_) | StoreError::Gap { .. } => Remedy::Fail,
        _ => Remedy::Retry,
    }
}

/// How long to wait before try `no` (from 1): 1, 2, 4 … times `first`, at most `longest`.
pub(crate) fn backoff(first: Duration, no: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(no.saturating_sub(1))).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_at_the_longest() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let waits: Vec<u64> =
            [1, 2, 3, 7, 40].iter().map(|&no| backoff(second, no, minute).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 60, 60]);
    }

    #[test]
    fn only_passing_faults_are_tried_again() {
        for patience in [Patience::Wait, Patience::PutBack] {
            let remedy = |error: JobError| error.remedy(patience);
            let store = VideoError::Store { uri: "v".into(), at: 0, length: 1, cause: "reset".into() };
            assert_eq!(remedy(JobError::Video(store)), Remedy::Retry);
            let (uri, at, cause) = ("v".to_owned(), 0, "403".to_owned());
            assert_eq!(remedy(JobError::Video(VideoError::Forbidden { uri, at, cause })), Remedy::Fail);
            let (uri, at, cause) = ("v".to_owned(), 0, "404".to_owned());
            assert_eq!(remedy(JobError::Video(VideoError::Missing { uri, at, cause })), Remedy::Fail);
            let (uri, container) = ("v".to_owned(), "mp4".to_owned());
            assert_eq!(remedy(JobError::Video(VideoError::NoVideoStream { uri, container })), Remedy::Fail);
            assert_eq!(remedy(JobError::Video(VideoError::Empty { uri: "v".into() })), Remedy::Fail);
            assert_eq!(remedy(JobError::Session(SessionError::Cancelled)), Remedy::Release);
            assert_eq!(
                remedy(JobError::Session(SessionError::NoDraft { strategy: "spectemp" })),
                Remedy::Fail
            );
            assert_eq!(remedy(JobError::Lost), Remedy::LetGo);
        }
    }

    #[test]
    fn a_full_disk_ends_a_run_and_puts_a_job_of_a_server_back() {
        let full = || JobError::Store(StoreError::Full { what: "the ledger".into() });
        assert_eq!(full().remedy(Patience::Wait), Remedy::FailAndStop);
        assert_eq!(full().remedy(Patience::PutBack), Remedy::Retry);
    }
}
