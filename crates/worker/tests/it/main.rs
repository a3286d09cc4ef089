//! Jobs through runner and worker, over real ledgers and real encoded videos, with scripted models.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod chores;
mod disk;
mod fleet;
mod runner;
mod support;
