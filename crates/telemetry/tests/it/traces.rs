//! Spans arrive at a collector: a job's under one trace from the API to the rounds, a request's under its caller's.

use spectemp_telemetry::{LogFormat, Otlp, flush_traces, follow, init, join_job};
use tracing::{Level, info_span, span};

use crate::collector::{self, Span};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const JOB: u128 = 0x0192_7f3c_5a00_7000_8000_0000_0000_0001;

/// What the API does with a request that submits a job.
fn request() {
    let request = span!(target: "tower_http::trace::make_span", Level::INFO, "request");
    assert!(follow(&request, CALLER));
    let _entered = request.enter();
    let submit = info_span!(target: "spectemp_api", "submit");
    assert!(join_job(&submit, JOB));
    drop(submit.entered());
}

/// What a worker does with the job later.
fn job() {
    let job = info_span!(target: "spectemp_worker", "job");
    assert!(join_job(&job, JOB));
    let _entered = job.enter();
    let _round = info_span!(target: "spectemp_worker", "round", round.no = 0).entered();
    let _too_fine = tracing::debug_span!(target: "spectemp_worker", "prefill").entered();
    let _not_ours = info_span!(target: "hyper::client", "connect").entered();
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span {name} in {spans:?}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn spans_arrive_in_the_traces_of_request_and_job() {
    assert!(!join_job(&info_span!("early"), JOB));
    let (traces_url, bodies) = collector::start();
    let otlp = Otlp { traces_url, service: "spectemp-test".to_owned(), share: 1.0 };
    // The log shows errors only: spans are sent all the same.
    init(LogFormat::Text, "error", Some(&otlp)).unwrap();

    request();
    job();
    let alone = info_span!(target: "spectemp_worker", "alone");
    assert!(!follow(&alone, "00-1-2-3"));
    drop(alone);
    flush_traces();

    let spans: Vec<Span> = bodies.try_iter().flat_map(|body| collector::spans(&body)).collect();
    assert_eq!(spans.len(), 5, "{spans:?}");
    assert!(spans.iter().all(|span| span.service == "spectemp-test" && span.version == "0.1.0"), "{spans:?}");
    let [request, submit, job, round] = ["request", "submit", "job", "round"].map(|name| named(&spans, name));
    assert_eq!(format!("00-{}-{}-01", hex(&request.trace), hex(&request.parent)), CALLER);
    for span in [submit, job, round] {
        assert_eq!(hex(&span.trace), format!("{JOB:032x}"), "{span:?}");
    }
    assert_eq!(submit.links, std::slice::from_ref(&request.id));
    assert_eq!((&submit.parent, &round.parent), (&job.parent, &job.id));
    assert!(named(&spans, "alone").parent.is_empty());
}
