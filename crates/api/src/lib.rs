//! REST in, rows and ids out: everything under `/api/v1`, described by an OpenAPI document, errors as RFC 9457 problems.
//!
//! The API writes rows and rings the doorbell; it never claims a job, opens a video or loads a model.

#![expect(unused_qualifications, reason = "the macros of utoipa write some")]

mod answers;
mod auth;
mod batches;
mod docs;
mod error;
mod events;
mod extract;
mod health;
mod index;
mod intake;
mod jobs;
mod page;
mod problem;
mod router;
mod schema;
mod serve;
mod shape;
mod sql;
mod state;
mod video;
mod webhook;

pub use docs::openapi;
pub use router::router;
pub use serve::serve;
pub use state::{AppState, RenderMetrics, Settings};
