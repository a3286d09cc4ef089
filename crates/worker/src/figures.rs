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
    if round.io.requests == 0 {
        cache_hit("bytes");
    }
    if tokens.reused > 0 {
        cache_hit("kv");
    }
}

/// Something was found in the cache of this name.
pub(crate) fn cache_hit(cache: &'static str) {
    counter!("spectemp_cache_hits_total", "cache" => cache).increment(1);
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
