//! The recorder behind the `metrics` facade and its text for Prometheus. It has no server of its own: API and worker
//! render it at `/metrics`.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::metrics::{METRICS, Metric, MetricKind};

/// Histogram samples wait in memory until they are put into buckets, at every scrape or after this time.
const UPKEEP: Duration = Duration::from_secs(5);

static HANDLE: Mutex<Option<MetricsHandle>> = Mutex::new(None);

/// Renders all metrics of this process.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// The `Content-Type` of [`Self::render`].
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// Starts recording at the first call; later calls give the same handle. What was written to the `metrics` facade
/// before the first call is lost, so a server calls this before anything else.
///
/// # Errors
/// Another recorder is installed in this process, or no thread can be started.
pub fn metrics_handle() -> anyhow::Result<MetricsHandle> {
    let mut kept = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = kept.as_ref() {
        return Ok(handle.clone());
    }
    let handle = MetricsHandle(install()?);
    *kept = Some(handle.clone());
    Ok(handle)
}

fn install() -> anyhow::Result<PrometheusHandle> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let MetricKind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    let handle = builder.install_recorder().context("metrics cannot be recorded")?;
    METRICS.iter().for_each(announce);
    gauge!("spectemp_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let kept = handle.clone();
    let upkeep = move || {
        loop {
            std::thread::sleep(UPKEEP);
            kept.run_upkeep();
        }
    };
    std::thread::Builder::new().name("metrics".to_owned()).spawn(upkeep).context("metrics cannot be kept")?;
    Ok(handle)
}

/// Tells the help text; a counter without labels is there from the start, so that its first step can be seen by `rate`.
fn announce(metric: &Metric) {
    match metric.kind {
        MetricKind::Counter => {
            describe_counter!(metric.name, metric.help);
            if metric.labels.is_empty() {
                counter!(metric.name).increment(0);
            }
        }
        MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
        MetricKind::Histogram(_) => describe_histogram!(metric.name, metric.help),
    }
}
