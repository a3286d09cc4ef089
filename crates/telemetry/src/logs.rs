//! Logs go to stderr, never to stdout, which belongs to results. `SPECTEMP_LOG` filters them as
//! `tracing_subscriber::EnvFilter` does; without it only warnings are shown.
//!
//! Spans have a filter of their own (see `traces`), so that a quiet log does not stop traces from being sent.

use anyhow::Context as _;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::traces::{self, Otlp};

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging, and sends traces where the environment names a collector ([`Otlp::from_env`]).
/// `filter` is used where `SPECTEMP_LOG` is not set.
///
/// # Errors
/// As [`init`].
pub fn init_logs(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    init(format, filter, Otlp::from_env().as_ref())
}

/// Starts logging, and sends traces to `otlp`; call [`flush_traces`](crate::flush_traces) before the process ends.
///
/// # Errors
/// A filter that does not parse, a collector address that is no URL, or a second call in one process.
pub fn init(format: LogFormat, filter: &str, otlp: Option<&Otlp>) -> anyhow::Result<()> {
    let filter = std::env::var("SPECTEMP_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter =
        EnvFilter::try_new(&filter).with_context(|| format!("log filter {filter:?} does not parse"))?;
    let provider = otlp.map(Otlp::provider).transpose()?;
    let registry = tracing_subscriber::registry();
    let started = match &provider {
        Some(provider) => {
            let lines = lines(format).with_filter(filter).boxed();
            registry.with(vec![lines, traces::layer(provider)]).try_init()
        }
        // One filter for all: with one per layer, an event that several threads meet for the first time at once is lost
        // for some of them.
        None => registry.with(lines(format)).with(filter).try_init(),
    };
    started.map_err(|cause| anyhow::anyhow!("logging cannot start: {cause}"))?;
    if let (Some(provider), Some(otlp)) = (provider, otlp) {
        traces::keep(provider, otlp.share);
    }
    Ok(())
}

fn lines(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => layer.with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}
