//! Every metric of the program in one table: what libraries write through the `metrics` facade, what `docs/metrics.md`
//! explains, what the dashboard and the alerts of the Helm chart ask for. Tests hold all of them together.

/// How a metric's values behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values in buckets; these are their upper limits.
    Histogram(&'static [f64]),
}

impl MetricKind {
    /// As Prometheus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// With its unit as the name's end where it has one.
    pub name: &'static str,
    /// How its values behave.
    pub kind: MetricKind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// A cached fetch takes milliseconds, a long prefill on a CPU minutes.
const STAGE_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 400.0];
/// From one row of the ledger to an upload of a million lines.
const REQUEST_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels, help }
}

/// All metrics, in the order of the documentation.
pub const METRICS: &[Metric] = &[
    gauge("spectemp_jobs", &["state"], "Jobs in the ledger by state, told by the API."),
    gauge("spectemp_jobs_running", &[], "Jobs that this worker holds a lease of."),
    counter("spectemp_jobs_ended_total", &["outcome"], "Jobs that left this worker, by how."),
    counter(
        "spectemp_dead_letters_total",
        &[],
        "Jobs given up: workers died of them, or their deadline passed.",
    ),
    counter(
        "spectemp_lease_lost_total",
        &[],
        "Leases lost by this worker: overtaken, cancelled or past their time.",
    ),
    counter("spectemp_rounds_total", &[], "Rounds committed to the ledger."),
    Metric {
        name: "spectemp_round_seconds",
        kind: MetricKind::Histogram(STAGE_SECONDS),
        labels: &["stage"],
        help: "Time of one round by stage.",
    },
    counter("spectemp_tokens_total", &["kind"], "Tokens of committed rounds, target and draft together."),
    counter("spectemp_fetch_requests_total", &[], "Requests sent to object stores for video bytes."),
    counter("spectemp_fetch_bytes_total", &[], "Video bytes fetched from object stores."),
    counter(
        "spectemp_decoded_frames_total",
        &[],
        "Frames decoded, those on the way to a wanted frame included.",
    ),
    counter("spectemp_cache_hits_total", &["cache"], "Rounds, blocks and embeddings that a cache served."),
    counter(
        "spectemp_cache_misses_total",
        &["cache"],
        "Rounds, blocks and embeddings that a cache did not serve.",
    ),
    Metric {
        name: "spectemp_http_request_seconds",
        kind: MetricKind::Histogram(REQUEST_SECONDS),
        labels: &["route", "method", "status"],
        help: "Time from a request to the head of its answer.",
    },
    gauge("spectemp_build_info", &["version"], "Always 1; tells the version that runs."),
];
