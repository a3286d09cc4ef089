//! Logs and the shutdown signal.
