//! Whole-system tests of spectemp, one binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests: a test ends where something is missing, and tells its figures"
)]

mod ask;
mod cluster;
mod demo;
mod generations;
mod imports;
mod kill;
mod overlap;
mod ranges;
mod remote;
mod run;
mod sharing;
mod support;
mod traces;
