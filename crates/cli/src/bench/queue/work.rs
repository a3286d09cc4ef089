//! Takes jobs out: claim, one round, answer, by several callers at once.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use spectemp_store::{Claim, Claimed, Finished, Ledger, ObjectKey};
use spectemp_types::{
    Answer, Chooser, Evidence, FrameRef, IoFigures, ModelRevision, Round, StageTimes, TimeSpan, TokenCounts,
    Totals, TraceVideo, Turn, TurnFinish, TurnKind, TurnRole, Verdict,
};
use tokio::task::JoinSet;

/// What the calls took, in seconds.
#[derive(Default)]
pub(super) struct Worked {
    pub(super) claim: Vec<f64>,
    pub(super) checkpoint: Vec<f64>,
    pub(super) finish: Vec<f64>,
    pub(super) jobs_per_s: f64,
}

/// Takes `jobs` jobs through.
pub(super) async fn through(ledger: &Ledger, jobs: usize, callers: u32) -> anyhow::Result<Worked> {
    let start = Instant::now();
    let (next, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Worked::default())));
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (ledger, next, all) = (ledger.clone(), Arc::clone(&next), Arc::clone(&all));
        tasks.spawn(async move {
            let name = format!("worker {caller}");
            let mut own = Worked::default();
            while next.fetch_add(1, Ordering::Relaxed) < jobs {
                one(&ledger, &name, &mut own).await?;
            }
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.claim.extend(own.claim);
            all.checkpoint.extend(own.checkpoint);
            all.finish.extend(own.finish);
            Ok(())
        });
    }
    super::load::finish(tasks).await?;
    let mut worked = std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner));
    worked.jobs_per_s = jobs as f64 / start.elapsed().as_secs_f64();
    Ok(worked)
}

async fn one(ledger: &Ledger, worker: &str, times: &mut Worked) -> anyhow::Result<()> {
    let start = Instant::now();
    let claimed = claim(ledger, worker).await?.context("no job waits: give more --jobs than --claims")?;
    times.claim.push(start.elapsed().as_secs_f64());
    answer(ledger, claimed, times).await
}

/// The next job, as a worker claims it.
pub(super) async fn claim(ledger: &Ledger, worker: &str) -> anyhow::Result<Option<Claimed>> {
    let claim =
        Claim { batch: None, worker, limit: 1, prefer_video: None, lease: Some(Duration::from_secs(60)) };
    Ok(ledger.claim(&claim).await?.pop())
}

/// One round and the answer of a job.
pub(super) async fn answer(ledger: &Ledger, claimed: Claimed, times: &mut Worked) -> anyhow::Result<()> {
    let round = round();
    let start = Instant::now();
    ledger.checkpoint(&claimed.lease, &round).await?;
    times.checkpoint.push(start.elapsed().as_secs_f64());

    let span = round.span;
    let answer = Answer {
        text: "red".to_owned(),
        choice: Some('A'),
        confidence: 0.875,
        evidence: vec![Evidence { start_s: span.start_s, end_s: span.end_s, frames_s: vec![12.0, 14.0] }],
    };
    let video = TraceVideo {
        uri: claimed.job.spec.video.redacted(),
        etag: Some("\"e1\"".to_owned()),
        bytes: 3_000_000_000,
        duration_s: 3600.0,
        width: 1280,
        height: 720,
    };
    let model = ModelRevision { name: "scripted".to_owned(), revision: "1".to_owned() };
    let finished = Finished {
        answer: &answer,
        totals: &Totals::of(std::slice::from_ref(&round)),
        video: &video,
        target: &model,
        draft: Some(&model),
        trace: &ObjectKey::Trace { job: claimed.lease.job(), epoch: claimed.lease.epoch() },
    };
    let start = Instant::now();
    ledger.finish(claimed.lease, finished).await?;
    times.finish.push(start.elapsed().as_secs_f64());
    Ok(())
}

/// A round of usual size: sixteen frames, two hundred tokens of text.
fn round() -> Round {
    let span = TimeSpan { start_s: 0.0, end_s: 3600.0 };
    let frame = |number: u32| FrameRef {
        requested_s: f64::from(number) * 225.0,
        pts_s: f64::from(number) * 225.0,
        stream_pts_s: f64::from(number) * 225.0,
        keyframe: true,
        label: format!("{number}"),
    };
    let times = StageTimes {
        fetch_ms: 120.0,
        decode_ms: 90.0,
        wait_ms: 30.0,
        vision_ms: 400.0,
        prefill_ms: 700.0,
        generate_ms: 2000.0,
    };
    let tokens = TokenCounts { text: 400, visual: 4096, reused: 0, encoded: 4096, generated: 200 };
    let turn = Turn {
        role: TurnRole::Target,
        kind: TurnKind::Regular,
        text: "The red car passes at the beginning of the segment. ".repeat(16),
        token_ids: (1000..1200).collect(),
        finish: TurnFinish::EndOfTurn,
        tokens,
        times,
    };
    Round {
        version: Round::VERSION,
        no: 0,
        span,
        dense: None,
        frames: (0..16).map(frame).collect(),
        chosen_by: Chooser::Uniform,
        turns: vec![turn],
        verdict: Verdict::Answer { text: "red".to_owned(), choice: Some('A'), confidence: 0.875 },
        fallbacks: vec![],
        warnings: vec![],
        io: IoFigures { requests: 20, bytes: 5_000_000, decoded_frames: 16, full_scan: false },
        times,
        timeline: Vec::new(),
        zero_unix_ms: None,
    }
}
