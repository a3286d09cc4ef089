//! The jobs of the property tests, and what is written about them.

use spectemp_types::{
    Answer, Chooser, IoFigures, JobSpec, ModelRevision, Plan, Question, Round, StageTimes, TimeSpan, Totals,
    TraceVideo, Verdict, VideoUri,
};

use crate::{Finished, Lease, Ledger, ObjectKey, StoreError};

pub(super) const JOBS: usize = 6;
pub(super) const VIDEOS: usize = 2;

pub(super) fn video(job: usize) -> usize {
    job % VIDEOS
}

pub(super) fn video_uri(video: usize) -> VideoUri {
    VideoUri::parse(&format!("/videos/{video}.mp4")).unwrap()
}

pub(super) fn spec(job: usize) -> JobSpec {
    JobSpec {
        id: format!("q{job}"),
        video: video_uri(video(job)),
        question: Question::new(format!("what is {job}"), vec![]).unwrap(),
        plan: Plan::named("demo").unwrap(),
    }
}

pub(super) fn round(job: usize, no: u32, epoch: u32) -> Round {
    Round {
        version: Round::VERSION,
        no,
        span: TimeSpan { start_s: 0.0, end_s: 1.5 },
        dense: None,
        frames: vec![],
        chosen_by: Chooser::Uniform,
        turns: vec![],
        verdict: Verdict::Nothing,
        fallbacks: vec![],
        warnings: vec![format!("round {no} of {job} in epoch {epoch}")],
        io: IoFigures::default(),
        times: StageTimes::default(),
        timeline: Vec::new(),
        zero_unix_ms: None,
    }
}

/// The epoch is the answer, so that the test sees who wrote it.
pub(super) async fn finish(ledger: &Ledger, lease: Lease) -> Result<(), StoreError> {
    let answer = Answer { text: lease.epoch().to_string(), choice: None, confidence: 0.5, evidence: vec![] };
    let video = TraceVideo { uri: "/v".into(), etag: None, bytes: 1, duration_s: 1.0, width: 2, height: 2 };
    let target = ModelRevision { name: "t".into(), revision: "1".into() };
    let trace = ObjectKey::Trace { job: lease.job(), epoch: lease.epoch() };
    let totals = Totals::default();
    let finished = Finished {
        answer: &answer,
        totals: &totals,
        video: &video,
        target: &target,
        draft: None,
        trace: &trace,
    };
    ledger.finish(lease, finished).await
}
