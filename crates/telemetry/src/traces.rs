//! Spans go to an OpenTelemetry collector over OTLP/HTTP (protobuf), in batches, from a thread of their own.
//!
//! Hazards: the exporter must be the blocking client (with the async one the batch thread panics and nothing is sent);
//! a span below INFO is never sent, and `tower_http`'s spans are DEBUG unless told otherwise; what was not flushed when
//! the process ends is lost, so [`flush_traces`] is the last thing a command does.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, Registry, filter::FilterFn};

/// How long the end of the process waits for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(5);

static PROVIDER: Mutex<Option<SdkTracerProvider>> = Mutex::new(None);
/// [`Otlp::share`] as bits; 1 where nothing else was said.
static SHARE: AtomicU64 = AtomicU64::new(0x3ff0_0000_0000_0000);

/// Where traces go, and under which name.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// URL that spans are posted to, with its path (`http://collector:4318/v1/traces`).
    pub traces_url: String,
    /// `service.name`, for example `spectemp-worker`.
    pub service: String,
    /// Share of the jobs whose traces are sent, from 0 to 1.
    pub share: f64,
}

impl Otlp {
    /// From OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` as it is, or `OTEL_EXPORTER_OTLP_ENDPOINT`
    /// with `/v1/traces`; `OTEL_SERVICE_NAME`, or `spectemp`. `None` where neither address is set, where
    /// `OTEL_SDK_DISABLED` is `true` or `OTEL_TRACES_EXPORTER` is `none`.
    ///
    /// `OTEL_TRACES_SAMPLER` and its argument say which share of the jobs is sent, and are read by the exporter for the
    /// rest. Headers, timeout, batch sizes and `OTEL_RESOURCE_ATTRIBUTES` are read by the exporter itself.
    pub fn from_env() -> Option<Self> {
        Self::from_lookup(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_lookup(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let says =
            |name: &str, word: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
        if says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none") {
            return None;
        }
        let traces_url = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| {
            let base = variable("OTEL_EXPORTER_OTLP_ENDPOINT")?;
            Some(format!("{}/v1/traces", base.trim_end_matches('/')))
        })?;
        let service = variable("OTEL_SERVICE_NAME").unwrap_or_else(|| "spectemp".to_owned());
        let sampler = variable("OTEL_TRACES_SAMPLER").unwrap_or_default();
        let share = match sampler.trim_start_matches("parentbased_") {
            "always_off" => 0.0,
            "traceidratio" => {
                variable("OTEL_TRACES_SAMPLER_ARG").and_then(|share| share.parse().ok()).unwrap_or(1.0)
            }
            _ => 1.0,
        };
        Some(Self { traces_url, service, share })
    }

    /// A provider that sends from now on.
    pub(crate) fn provider(&self) -> anyhow::Result<SdkTracerProvider> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(&self.traces_url)
            .build()
            .with_context(|| format!("traces cannot be sent to {:?}", self.traces_url))?;
        let resource = Resource::builder()
            .with_service_name(self.service.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let exporter = Telling { exporter, failing: AtomicBool::new(false) };
        Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
    }
}

/// Sends the spans that are ours, and the requests' (`tower_http`): INFO and above, whatever the log shows. Spans of
/// HTTP clients stay out, the exporter's own requests among them.
pub(crate) fn layer(provider: &SdkTracerProvider) -> Box<dyn Layer<Registry> + Send + Sync> {
    let ours = FilterFn::new(|metadata| {
        let target = metadata.target();
        target.starts_with("spectemp") || target.starts_with("tower_http")
    });
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("spectemp"))
        .with_filter(ours.with_max_level_hint(LevelFilter::INFO))
        .with_filter(LevelFilter::INFO)
        .boxed()
}

/// The share of the jobs whose traces are sent.
pub(crate) fn kept_share() -> f64 {
    f64::from_bits(SHARE.load(Ordering::Relaxed))
}

/// Keeps the provider for [`flush_traces`].
pub(crate) fn keep(provider: SdkTracerProvider, share: f64) {
    SHARE.store(share.to_bits(), Ordering::Relaxed);
    *PROVIDER.lock().unwrap_or_else(PoisonError::into_inner) = Some(provider);
}

/// Sends what is left and stops sending; waits a few seconds at most. Does nothing where no traces are sent. Not to be
/// called on a thread of an async runtime, which it would block.
pub fn flush_traces() {
    let provider = PROVIDER.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(provider) = provider else { return };
    if let Err(cause) = provider.shutdown_with_timeout(LAST_SPANS) {
        tracing::warn!(error = %cause, "the last traces were not sent");
    }
}

/// An exporter that says so when it begins to fail, once, and when it works again: a collector that is down for an hour
/// is two lines in the log.
#[derive(Debug)]
struct Telling<E> {
    exporter: E,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        let failed_before = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(cause) if !failed_before => {
                tracing::warn!(error = %cause, "traces cannot be sent, they are dropped")
            }
            Ok(()) if failed_before => tracing::warn!("traces are sent again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::Otlp;

    fn read(variables: &[(&str, &str)]) -> Option<(String, String, f64)> {
        let lookup = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Otlp::from_lookup(lookup).map(|otlp| (otlp.traces_url, otlp.service, otlp.share))
    }

    #[test]
    fn environment_is_read_as_opentelemetry_says() {
        const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        let expect = |url: &str, service: &str| Some((url.to_owned(), service.to_owned(), 1.0));
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("OTEL_SERVICE_NAME", "x")]), None);
        assert_eq!(read(&[BASE]), expect("http://collector:4318/v1/traces", "spectemp"));
        assert_eq!(
            read(&[BASE, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/x"), ("OTEL_SERVICE_NAME", "api")]),
            expect("http://t/x", "api")
        );
        let sampled = |sampler, share| {
            read(&[BASE, ("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", share)])
                .map(|(_, _, share)| share)
        };
        assert_eq!(sampled("parentbased_traceidratio", "0.25"), Some(0.25));
        assert_eq!(sampled("parentbased_always_off", "1"), Some(0.0));
        assert_eq!(sampled("parentbased_always_on", "0.25"), Some(1.0));
        assert_eq!(read(&[BASE, ("OTEL_SDK_DISABLED", "TRUE")]), None);
        assert_eq!(read(&[BASE, ("OTEL_TRACES_EXPORTER", "none")]), None);
    }
}
