//! The cluster under blows: workers are killed, Redis forgets and restarts, Postgres restarts, the S3 server fails and
//! stalls. At the end every job has exactly one answer, the one of an undisturbed run, and no more was generated in
//! vain than one round per kill and running job.

mod chaos;
// The benches' own: no room may import `cli`, and the figures of both are read side by side.
#[path = "../../../crates/cli/src/bench/origin.rs"]
mod origin;
mod s3;
mod servers;
mod setting;
mod verdict;

use std::time::Duration;

use chaos::{Blows, Chaos};
pub(crate) use servers::Servers;
use setting::Setting;

/// How large a test is.
pub(crate) struct Size {
    /// Lengths of the videos in seconds; one video each.
    pub(crate) seconds: Vec<u32>,
    /// Questions per video, 5 at most.
    pub(crate) questions: usize,
    /// The most rounds of a job: each question is asked once with each of these.
    pub(crate) max_rounds: Vec<u32>,
    /// Jobs, the first of all questions about all videos.
    pub(crate) jobs: usize,
    pub(crate) blows: Blows,
    /// The longest pause between two kills.
    pub(crate) pause: Duration,
}

/// Workers at work at any time.
pub(crate) const WORKERS: usize = 3;
/// Jobs that each of them runs at once.
pub(crate) const CONCURRENCY: usize = 2;

#[test]
fn ten_kills_lose_nothing() {
    beat(&Size {
        seconds: (0..12).map(|n| 64 + 12 * n).collect(),
        questions: 5,
        max_rounds: vec![3],
        jobs: 60,
        blows: Blows { kills: 10, redis_flushes: 2, redis_restarts: 1, postgres_restarts: 1 },
        pause: Duration::from_millis(1200),
    });
}

/// The committed run: `bench/results/crash.json` (SPECTEMP_CRASH_REPORT names another file).
#[test]
#[ignore = "five minutes: make crash"]
fn a_hundred_kills_lose_nothing() {
    beat(&Size {
        seconds: (0..40).map(|n| 120 + 12 * n).collect(),
        questions: 5,
        max_rounds: vec![3, 2, 4],
        jobs: 500,
        blows: Blows { kills: 100, redis_flushes: 2, redis_restarts: 1, postgres_restarts: 1 },
        pause: Duration::from_millis(1500),
    });
}

fn beat(size: &Size) {
    let setting = Setting::new(size);
    let reference = setting.undisturbed();
    setting.submit();
    setting.s3.misbehave(50, 4);
    let told = Chaos::new(&setting).beat(size);
    setting.s3.misbehave(0, 0);
    let mut report = serde_json::to_value(origin::Origin::here()).unwrap();
    let verdict = verdict::judge(&setting, &reference, &told);
    report.as_object_mut().unwrap().extend(verdict.as_object().unwrap().clone());
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    if let Some(path) = std::env::var_os("SPECTEMP_CRASH_REPORT") {
        std::fs::write(path, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
    }
}
