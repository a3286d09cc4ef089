//! Spans arrive at a collector, under one trace from the request to the round.

use spectemp_telemetry::{LogFormat, Otlp, current_traceparent, flush_traces, follow, init};
use tracing::{Level, info_span, span};

use crate::collector::{self, Span};

/// What the API does: a span for the request, whose `traceparent` is kept with the job.
fn request() -> String {
    let span = span!(target: "tower_http::trace::make_span", Level::INFO, "request");
    let _entered = span.enter();
    current_traceparent().unwrap()
}

/// What a worker does with the row later.
fn job(traceparent: &str) {
    let job = info_span!(target: "spectemp_worker", "job");
    assert!(follow(&job, traceparent));
    let _entered = job.enter();
    let _round = info_span!(target: "spectemp_worker", "round", round.no = 0).entered();
    let _too_fine = tracing::debug_span!(target: "spectemp_worker", "prefill").entered();
    let _not_ours = info_span!(target: "hyper::client", "connect").entered();
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span {name} in {spans:?}"))
}

#[test]
fn one_trace_from_request_to_round() {
    assert_eq!(current_traceparent(), None, "no traces are sent yet");
    let (traces_url, bodies) = collector::start();
    let otlp = Otlp { traces_url, service: "spectemp-test".to_owned() };
    // The log shows errors only: spans are sent all the same.
    init(LogFormat::Text, "error", Some(&otlp)).unwrap();
    assert_eq!(current_traceparent(), None, "outside of every span");

    let traceparent = request();
    job(&traceparent);
    let broken = info_span!(target: "spectemp_worker", "alone");
    for text in
        ["", "00-1-2-3", "00-00000000000000000000000000000000-0000000000000000-01", &"x".repeat(10_000)]
    {
        assert!(!follow(&broken, text), "{text}");
    }
    drop(broken);
    flush_traces();

    let spans: Vec<Span> = bodies.try_iter().flat_map(|body| collector::spans(&body)).collect();
    assert_eq!(spans.len(), 4, "{spans:?}");
    let [request, job, round] = ["request", "job", "round"].map(|name| named(&spans, name));
    assert!(spans.iter().all(|span| span.service == "spectemp-test" && span.version == "0.1.0"), "{spans:?}");
    assert_eq!((&job.trace, &job.parent), (&request.trace, &request.id));
    assert_eq!((&round.trace, &round.parent), (&request.trace, &job.id));
    assert!(named(&spans, "alone").parent.is_empty());
    let hex: String = request.trace.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(traceparent.split('-').nth(1), Some(&*hex));
}
