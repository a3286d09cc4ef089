//! What a run tells while it goes on. Nothing hangs on these: the ledger is the truth.

use std::{sync::Arc, time::Duration};

use spectemp_types::{JobId, Round, Trace};

/// Which job an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobName {
    /// Its UUID.
    pub job: JobId,
    /// The user's id.
    pub id: Arc<str>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A job was claimed; it goes on after `rounds` committed ones.
    Started {
        /// Which job.
        name: JobName,
        /// Rounds of an earlier run.
        rounds: u32,
    },
    /// The rounds of an earlier run rest on another version of the video, other models or other prompts: they were
    /// dropped.
    Restarted {
        /// Which job.
        name: JobName,
        /// How many rounds were dropped.
        dropped: u32,
        /// What is not as it was.
        cause: String,
    },
    /// A round is committed.
    Round {
        /// Which job.
        name: JobName,
        /// The round.
        round: Arc<Round>,
    },
    /// A passing fault: the job is tried again after a while.
    Retry {
        /// Which job.
        name: JobName,
        /// What went wrong.
        error: String,
        /// How long it waits.
        after: Duration,
    },
    /// A job ended, or was given back.
    Ended {
        /// Which job.
        name: JobName,
        /// How.
        outcome: Outcome,
    },
}

/// How a job's turn ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With its answer.
    Answered(Arc<Trace>),
    /// With an error.
    Failed(String),
    /// Back in the queue, because the run stops.
    Released,
    /// Back in the queue for a while after a passing fault.
    PutBack {
        /// What went wrong.
        error: String,
        /// How long it waits.
        after: Duration,
    },
    /// Taken away by another process or cancelled by its owner.
    Lost,
}
