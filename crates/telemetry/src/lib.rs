//! Logs to stderr and the shutdown signal.

mod logs;
mod shutdown;

pub use logs::{LogFormat, init_logs};
pub use shutdown::{Shutdown, shutdown_on_signals};
