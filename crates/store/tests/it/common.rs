//! Things that the tests are made of.

use serde_json::{Value, json};
use spectemp_store::{Claim, Claimed, Home};
use spectemp_types::{
    Answer, Chooser, DenseSample, Evidence, FrameRef, IoFigures, JobId, JobSpec, ModelRevision, Plan,
    Question, Round, Stage, StageSpan, StageTimes, TimeSpan, TokenCounts, Totals, Trace, TraceVideo, Turn,
    TurnFinish, TurnKind, TurnRole, Verdict, VideoUri,
};
use tempfile::TempDir;

pub(crate) fn dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) async fn home() -> (TempDir, Home) {
    let dir = dir();
    let home = Home::open(dir.path(), false).await.unwrap();
    (dir, home)
}

pub(crate) fn uri(text: &str) -> VideoUri {
    VideoUri::parse(text).unwrap()
}

pub(crate) fn spec(id: &str, video: &str) -> JobSpec {
    JobSpec {
        id: id.to_owned(),
        video: uri(video),
        question: Question::new(format!("what happens in {id}"), vec!["red".into(), "blue".into()]).unwrap(),
        plan: Plan::named("demo").unwrap(),
    }
}

fn frame(pts_s: f64) -> FrameRef {
    FrameRef {
        requested_s: pts_s,
        pts_s,
        stream_pts_s: pts_s + 0.5,
        keyframe: true,
        label: format!("{pts_s}"),
    }
}

/// Round 0 names a segment, later ones look at it.
pub(crate) fn round(no: u32) -> Round {
    let next = TimeSpan { start_s: 10.0, end_s: 20.0 };
    let at_ms = 10.0 * f64::from(no);
    let tokens = TokenCounts { text: 50, visual: 64, reused: 10, encoded: 60, generated: 7 };
    let times = StageTimes {
        fetch_ms: 1.5,
        decode_ms: 2.0,
        wait_ms: 2.5,
        vision_ms: 3.0,
        prefill_ms: 4.0,
        generate_ms: 5.0,
    };
    let turn = Turn {
        role: TurnRole::Target,
        kind: TurnKind::Regular,
        text: format!("<think>round {no}</think>"),
        token_ids: vec![1, 2, 3],
        finish: TurnFinish::EndOfTurn,
        tokens,
        times,
    };
    Round {
        version: Round::VERSION,
        no,
        span: if no == 0 { TimeSpan { start_s: 0.0, end_s: 64.0 } } else { next },
        dense: (no > 0).then(|| DenseSample {
            fps: 0.5,
            lowered: false,
            frames: (0..5).map(|k| frame(10.0 + 2.0 * f64::from(k))).collect(),
        }),
        frames: vec![frame(12.0), frame(14.0)],
        chosen_by: if no == 0 { Chooser::Uniform } else { Chooser::Draft },
        turns: vec![turn],
        verdict: Verdict::Segment { span: next },
        fallbacks: vec![],
        warnings: vec![],
        io: IoFigures { requests: 3, bytes: 1000, decoded_frames: 4, full_scan: false },
        times,
        timeline: vec![
            StageSpan { stage: Stage::Frames, turn: None, began_ms: at_ms, ended_ms: at_ms + 3.0 },
            StageSpan { stage: Stage::Generate, turn: Some(0), began_ms: at_ms + 4.0, ended_ms: at_ms + 9.0 },
        ],
        zero_unix_ms: Some(1_700_000_000_000.0),
    }
}

/// Asks for the first stages of a job.
pub(crate) const FIRST_STAGES: &str = "select id, round, stage, turn, role, began_ms, ended_ms, began_at, ended_at \
    from stages order by began_at limit 3";

/// Those of one whose rounds are [`round`]s.
pub(crate) fn first_stages(id: &str) -> Value {
    let at = |ms: u32| format!("2023-11-14T22:13:20.{ms:03}Z");
    json!([
        [id, 0, "frames", null, null, 0.0, 3.0, at(0), at(3)],
        [id, 0, "generate", 0, "target", 4.0, 9.0, at(4), at(9)],
        [id, 1, "frames", null, null, 10.0, 13.0, at(10), at(13)],
    ])
}

pub(crate) fn trace(job: JobId, spec: JobSpec, rounds: Vec<Round>) -> Trace {
    let totals = Totals::of(&rounds);
    Trace {
        version: Trace::VERSION,
        job_id: job,
        video: TraceVideo {
            uri: spec.video.redacted(),
            etag: Some("\"e1\"".into()),
            bytes: 5000,
            duration_s: 64.0,
            width: 64,
            height: 48,
        },
        spec,
        target: ModelRevision { name: "target".into(), revision: "r1".into() },
        draft: Some(ModelRevision { name: "draft".into(), revision: "r2".into() }),
        rounds,
        answer: Answer {
            text: "red".into(),
            choice: Some('A'),
            confidence: 0.875,
            evidence: vec![Evidence { start_s: 10.0, end_s: 20.0, frames_s: vec![12.0, 14.0] }],
        },
        totals,
    }
}

pub(crate) async fn claim(home: &Home, batch: &str, limit: usize) -> Vec<Claimed> {
    home.ledger()
        .claim(&Claim { batch: Some(batch), worker: "test", limit, prefer_video: None, lease: None })
        .await
        .unwrap()
}

/// Two rounds and the answer.
pub(crate) async fn answer(home: &Home, claimed: Claimed) {
    for no in 0..2 {
        home.ledger().checkpoint(&claimed.lease, &round(no)).await.unwrap();
    }
    let trace = trace(claimed.job.id, claimed.job.spec, vec![round(0), round(1)]);
    home.finish(claimed.lease, &trace).await.unwrap();
}
