//! The text that Prometheus reads.

use spectemp_telemetry::{METRICS, metrics_handle};

#[test]
fn rendered_as_prometheus_reads_it() {
    let handle = metrics_handle().unwrap();
    let again = metrics_handle().unwrap();
    metrics::counter!("spectemp_tokens_total", "kind" => "generated").increment(7);
    metrics::gauge!("spectemp_jobs", "state" => "queued").set(3.0);
    metrics::histogram!("spectemp_round_seconds", "stage" => "prefill").record(0.3);
    let text = again.render();
    for line in [
        "spectemp_tokens_total{kind=\"generated\"} 7",
        "spectemp_jobs{state=\"queued\"} 3",
        "spectemp_round_seconds_bucket{stage=\"prefill\",le=\"0.25\"} 0",
        "spectemp_round_seconds_bucket{stage=\"prefill\",le=\"0.5\"} 1",
        "spectemp_round_seconds_count{stage=\"prefill\"} 1",
        "# TYPE spectemp_round_seconds histogram",
        "# HELP spectemp_rounds_total Rounds committed to the ledger.",
        // Never written to, and there all the same.
        "spectemp_dead_letters_total 0",
        "spectemp_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "no line {line:?} in\n{text}");
    }
    assert_eq!(handle.render().len(), text.len(), "the same recorder, in any order");
}

/// Prometheus' own rules for names: counters end in `_total`, nothing else does, and no name is there twice.
#[test]
fn names_follow_the_rules() {
    for metric in METRICS {
        assert_eq!(metric.name.ends_with("_total"), metric.kind.name() == "counter", "{}", metric.name);
        assert!(metric.name.starts_with("spectemp_") && metric.help.ends_with('.'), "{}", metric.name);
        assert_eq!(METRICS.iter().filter(|other| other.name == metric.name).count(), 1, "{}", metric.name);
    }
}
