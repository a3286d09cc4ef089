//! Server-sent events: what happens to a job or a batch, until it ends.
//!
//! A stream is made from the ledger alone, whatever process does the work, and can be taken up again anywhere: the id
//! of each event says all that was told before it.

mod batch;
mod job;
mod stream;

pub(crate) use batch::{__path_batch, batch};
pub(crate) use job::{__path_job, job};
