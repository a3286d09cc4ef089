//! Logs go to stderr, never to stdout, which belongs to results. `SPECTEMP_LOG` filters them as
//! `tracing_subscriber::EnvFilter` does; without it only warnings are shown.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. `filter` is used where `SPECTEMP_LOG` is not set.
///
/// # Errors
/// A filter that does not parse, or a second call in one process.
pub fn init_logs(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = std::env::var("SPECTEMP_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter =
        EnvFilter::try_new(&filter).with_context(|| format!("log filter {filter:?} does not parse"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|cause| anyhow::anyhow!("logging cannot start: {cause}"))
}
