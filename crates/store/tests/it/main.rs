//! The store from outside.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod cluster;
mod common;
mod export;
mod full;
mod gc;
mod home;
mod http;
mod index;
mod inventory;
mod keys;
mod killed;
mod ledger;
mod ledgers;
mod manifests;
mod reader;
mod retention;
mod s3;
mod s3_server;
mod sql;
