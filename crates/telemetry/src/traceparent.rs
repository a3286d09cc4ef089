//! Traces over the borders of processes.
//!
//! A job has a trace of its own, whose id is the job's: the API that takes it in and every worker that runs it, hours
//! later and on another machine, join it by the id alone. (A trace of the request that submitted it would hold a million
//! jobs where that was a batch; and nothing has to be kept with the job.) A request follows its caller's `traceparent`,
//! the text of W3C Trace Context, version 00.

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt as _, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::traces;

/// Makes `span` a child of the span that `traceparent` names, and tells whether it now is. `span` must not have been
/// entered yet: make it, let it follow, then `.instrument(span)`. A text that is no `traceparent` changes nothing; nor
/// does anything where no traces are sent.
pub fn follow(span: &Span, traceparent: &str) -> bool {
    let Some(parent) = parse(traceparent) else { return false };
    span.set_parent(Context::new().with_remote_span_context(parent)).is_ok()
}

/// Makes `span` a part of the trace of the job with this UUID, and tells whether it now is. The span that it is in is
/// linked to it. As with [`follow`], `span` must not have been entered yet.
pub fn join_job(span: &Span, job: u128) -> bool {
    let parent = of_job(job, traces::kept_share());
    let joined = span.set_parent(Context::new().with_remote_span_context(parent)).is_ok();
    let around = Span::current().context().span().span_context().clone();
    if joined && around.is_valid() && around.trace_id() != TraceId::from(job) {
        span.add_link(around);
    }
    joined
}

/// The span that all spans of a job have as their parent. Nobody sends it: it is a place, not a work.
fn of_job(job: u128, share: f64) -> SpanContext {
    // The job's id begins with its time and has fixed bits, so neither half of it is spread evenly.
    let mut spread = (job >> 64) as u64 ^ (job as u64).rotate_left(23);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        spread = (spread ^ (spread >> 33)).wrapping_mul(factor);
    }
    let kept = (spread >> 11) as f64 / (1_u64 << 53) as f64 <= share && share > 0.0;
    let flags = if kept { TraceFlags::SAMPLED } else { TraceFlags::default() };
    SpanContext::new(TraceId::from(job), SpanId::from(spread | 1), flags, true, TraceState::default())
}

/// Strict, unlike the propagator of the SDK, which takes ids of any length.
fn parse(traceparent: &str) -> Option<SpanContext> {
    let part = |from: usize, to: usize| {
        let text = traceparent.get(from..to)?;
        text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(text)
    };
    let dashed = [2, 35, 52].iter().all(|at| traceparent.as_bytes().get(*at) == Some(&b'-'));
    if traceparent.len() != 55 || !dashed || part(0, 2)? != "00" {
        return None;
    }
    let trace = TraceId::from_hex(part(3, 35)?).ok()?;
    let span = SpanId::from_hex(part(36, 52)?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(part(53, 55)?, 16).ok()?) & TraceFlags::SAMPLED;
    let parent = SpanContext::new(trace, span, flags, true, TraceState::default());
    parent.is_valid().then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::{of_job, parse};

    #[test]
    fn a_share_of_the_jobs_is_kept_and_always_the_same() {
        // Ids of version 7 that were made within one second.
        let job = |i: u128| {
            (0x0192_7f3c_5a00_u128 << 80) | (7 << 76) | (2 << 62) | (i * 0x9e37_79b9_7f4a_7c15 % (1 << 60))
        };
        let kept = |share: f64| (0..4000).filter(|i| of_job(job(*i), share).is_sampled()).count();
        assert_eq!((kept(0.0), kept(1.0)), (0, 4000));
        assert!((300..500).contains(&kept(0.1)), "{}", kept(0.1));
        let place = of_job(job(7), 1.0);
        assert_eq!(place, of_job(job(7), 1.0));
        assert_eq!(place.trace_id().to_string(), format!("{:032x}", job(7)));
    }

    #[test]
    fn only_what_the_standard_allows() {
        const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(parse(GOOD).is_some_and(|parent| parent.is_sampled() && parent.is_remote()));
        assert!(parse(&GOOD.replace("-01", "-00")).is_some_and(|parent| !parent.is_sampled()));
        for bad in [
            "",
            "00-1-2-3",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace("-01", "-0g"),
            &GOOD.replace("-01", "-01-more"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &"ü".repeat(28),
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
