//! The crate as the program uses it. Recorder and subscriber are one per process, so each test that installs one is
//! the only one of its kind in this binary.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a test ends where something is wrong"
)]

mod collector;
mod metrics;
mod names;
mod traces;
