//! The store from outside.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;
mod export;
mod full;
mod gc;
mod home;
mod http;
mod killed;
mod ledger;
mod sql;
