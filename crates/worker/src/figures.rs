//! What is counted, through the `metrics` facade. `docs/metrics.md` explains the names.

use metrics::{counter, gauge, histogram};
use spectemp_types::Round;

use crate::event::{Event, Outcome};

/// Counts what happened.
pub(crate) fn count(event: &Event) {
    match event {
        Event::Round { round, .. } => count_round(round),
        Event::Ended { outcome, .. } => {
            counter!("spectemp_jobs_ended_total", "outcome" => word(outcome)).increment(1);
            if matches!(outcome, Outcome::Lost) {
                counter!("spectemp_lease_lost_total").increment(1);
            }
        }
        Event::Started { .. } | Event::Restarted { .. } | Event::Retry { .. } => {}
    }
}

/// How many jobs run now.
pub(crate) fn running(jobs: usize) {
    gauge!("spectemp_jobs_running").set(jobs as f64);
}

/// Jobs given up because processes die of them.
pub(crate) fn dead_letters(jobs: u64) {
    counter!("spectemp_dead_letters_total").increment(jobs);
}

fn count_round(round: &Round) {
    counter!("spectemp_rounds_total").increment(1);
    let times = round.times;
    let stages = [
        ("fetch", times.fetch_ms),
        ("decode", times.decode_ms),
        ("wait", times.wait_ms),
        ("vision", times.vision_ms),
        ("prefill", times.prefill_ms),
        ("generate", times.generate_ms),
    ];
    for (stage, ms) in stages {
        histogram!("spectemp_round_seconds", "stage" => stage).record(ms / 1000.0);
    }
    let tokens = round.tokens();
    let kinds = [
        ("text", tokens.text),
        ("visual", tokens.visual),
        ("reused", tokens.reused),
        ("encoded", tokens.encoded),
        ("generated", tokens.generated),
    ];
    for (kind, tokens) in kinds {
        counter!("spectemp_tokens_total", "kind" => kind).increment(tokens);
    }
    counter!("spectemp_fetch_requests_total").increment(round.io.requests);
    counter!("spectemp_fetch_bytes_total").increment(round.io.bytes);
    counter!("spectemp_decoded_frames_total").increment(round.io.decoded_frames);
    cache("bytes", round.io.requests == 0);
    cache("frames", round.io.decoded_frames == 0);
    cache("kv", tokens.reused > 0);
}

/// What was looked for in the cache of this name was there, or not.
pub(crate) fn cache(cache: &'static str, there: bool) {
    match there {
        true => counter!("spectemp_cache_hits_total", "cache" => cache).increment(1),
        false => counter!("spectemp_cache_misses_total", "cache" => cache).increment(1),
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered(_) => "answered",
        Outcome::Failed(_) => "failed",
        Outcome::PutBack { .. } => "put_back",
        Outcome::Released => "released",
        Outcome::Lost => "lost",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rounds_tell_what_was_at_hand() {
        let metrics = spectemp_telemetry::metrics_handle().unwrap();
        let round = |requests: u64, frames: u64, reused: u64| -> Round {
            serde_json::from_value(json!({
                "version": 1, "no": 0, "span": {"start_s": 0.0, "end_s": 10.0}, "frames": [], "chosen_by": "uniform",
                "turns": [{
                    "role": "target", "kind": "regular", "text": "", "token_ids": [], "finish": "end_of_turn",
                    "tokens": {"text": 9, "visual": 9, "reused": reused, "generated": 1},
                    "times": {"fetch_ms": 0.0, "decode_ms": 0.0, "vision_ms": 0.0, "prefill_ms": 0.0, "generate_ms": 0.0},
                }],
                "verdict": {"kind": "answer", "text": "", "confidence": 0.5},
                "io": {"requests": requests, "bytes": 0, "decoded_frames": frames},
                "times": {"fetch_ms": 0.0, "decode_ms": 0.0, "vision_ms": 0.0, "prefill_ms": 0.0, "generate_ms": 0.0},
            }))
            .unwrap()
        };
        for round in [round(3, 40, 0), round(0, 8, 0), round(0, 0, 12)] {
            count_round(&round);
        }
        cache("disk", true);
        let text = metrics.render();
        for (name, cache, count) in [
            ("hits", "bytes", 2),
            ("misses", "bytes", 1),
            ("hits", "frames", 1),
            ("misses", "frames", 2),
            ("hits", "kv", 1),
            ("misses", "kv", 2),
            ("hits", "disk", 1),
        ] {
            let line = format!("spectemp_cache_{name}_total{{cache=\"{cache}\"}} {count}");
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
    }
}
