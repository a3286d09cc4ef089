//! Logs to stderr, metrics for Prometheus, traces over OTLP, and the shutdown signal.
//!
//! Libraries write through the facades `tracing` and `metrics` and need nothing of this crate but the functions that lead
//! a trace from process to process: [`join_job`] and [`follow`].

mod logs;
mod metrics;
mod prometheus;
mod shutdown;
mod traceparent;
mod traces;

pub use logs::{LogFormat, init, init_logs};
pub use metrics::{METRICS, Metric, MetricKind};
pub use prometheus::{MetricsHandle, metrics_handle};
pub use shutdown::{Shutdown, shutdown_on_signals};
pub use traceparent::{follow, join_job};
pub use traces::{Otlp, flush_traces};
