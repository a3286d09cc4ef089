//! Jobs become leases become sessions of rounds become results: a batch on one machine ([`Runner`]), or any jobs of a
//! cluster ([`Worker`]), with the housekeeping that a cluster needs ([`Chores`]).

mod basis;
mod chores;
mod ending;
mod error;
mod event;
mod figures;
mod fleet;
mod hold;
mod job;
mod job_file;
mod meter;
mod runner;
mod shared;
mod shelf;
mod tap;
mod tier;
mod webhook;

pub use chores::{Chores, ChoresOptions};
pub use error::WorkerError;
pub use event::{Event, JobName, Outcome};
pub use fleet::{Worker, WorkerOptions};
pub use job_file::{Defaults, FileJob, JobFile};
pub use runner::{Ended, Models, Options, Runner, Stop, Work};
pub use tier::DiskTier;
pub use webhook::{SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookBody, signature};
