//! A job carries its trace: the API writes the `traceparent` of its request beside the job, the worker that claims the
//! job follows it, hours later and on another machine. The text is that of W3C Trace Context, version 00.

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt as _, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The `traceparent` of the current span: `00-<trace>-<span>-<flags>`. `None` where no traces are sent, or outside of
/// every span.
pub fn current_traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let current = span.span_context();
    current.is_valid().then(|| {
        format!("00-{}-{}-{:02x}", current.trace_id(), current.span_id(), current.trace_flags().to_u8())
    })
}

/// Makes `span` a child of the span that `traceparent` names, and tells whether it now is. `span` must not have been
/// entered yet: make it, let it follow, then `.instrument(span)`. A text that is no `traceparent` changes nothing; nor
/// does anything where no traces are sent.
pub fn follow(span: &Span, traceparent: &str) -> bool {
    let Some(parent) = parse(traceparent) else { return false };
    span.set_parent(Context::new().with_remote_span_context(parent)).is_ok()
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
    use super::parse;

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
