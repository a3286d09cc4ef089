//! What can go wrong at the doorbell. None of it loses a job.

/// Why a message could not be sent.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum QueueError {
    /// The URL cannot be used.
    #[error("redis url cannot be used: {0} (redis://host:6379/0, or rediss:// for TLS)")]
    Url(String),
    /// Redis does not answer, or not in time.
    #[error("redis is not reachable: {0}")]
    Down(String),
    /// A cron line that cannot be read.
    #[error("{line:?} is no cron line (minute hour day month weekday): {cause}")]
    Cron {
        /// The line.
        line: String,
        /// Why.
        cause: String,
    },
}

impl From<redis::RedisError> for QueueError {
    fn from(error: redis::RedisError) -> Self {
        Self::Down(error.to_string())
    }
}
