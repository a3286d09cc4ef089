//! The chart without a cluster: values against their schema, manifests that helm rendered (`helm/tests/render.sh`, kept
//! in the repository, since helm is no part of what the tests need), and the program that the manifests start.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a test ends where something is wrong"
)]

mod files;
mod manifests;
mod pods;
mod program;
mod values;
