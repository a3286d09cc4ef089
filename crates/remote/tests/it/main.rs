//! A model server as the crate sees it: a double that keeps to the published protocol strictly, and fails on request.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests: a test ends where something is missing"
)]

mod double;
mod faults;
mod opening;
mod protocol;
mod real;
mod support;
