//! The glue of one machine: a file of jobs becomes leases, sessions of rounds, and results.

mod error;
mod event;
mod job;
mod job_file;
mod meter;
mod runner;
mod shelf;
mod tap;
mod tier;

pub use error::WorkerError;
pub use event::{Event, JobName, Outcome};
pub use job_file::{Defaults, FileJob, JobFile};
pub use runner::{Ended, Models, Options, Runner, Stop, Work};
pub use tier::DiskTier;
