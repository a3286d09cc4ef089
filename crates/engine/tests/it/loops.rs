//! Each strategy from the first frame to the answer.

use std::sync::Arc;

use spectemp_engine::{
    ErrorClass, FrameSource, Part, Session, SessionError, VlmError,
    testing::{ScriptedVlm, StillFrames, card},
};
use spectemp_types::{Chooser, Evidence, TurnKind, TurnRole, Verdict};

use crate::common::{demo_card, pair, run, setup, spec};

const SEGMENT: &str = "<think> red at 45</think><segment>(15, 75)</segment>";
const ANSWER: &str = "<think> digit 7</think><answer>7</answer>";
const PICKS: &str = "<think> digit at 40</think><frame>[40, 41]</frame>";

#[tokio::test]
async fn round_0_may_answer() {
    let (target, draft) = pair(demo_card, &[ANSWER], &[]);
    let (rounds, outcome) = run(setup(spec("demo", &[], &[]), &target, &draft), vec![]).await.unwrap();
    assert_eq!(rounds.len(), 1);
    assert_eq!(rounds[0].frames.len(), 10);
    assert_eq!(outcome.answer.text, "7");
    let Evidence { start_s, end_s, frames_s } = &outcome.answer.evidence[0];
    assert_eq!((*start_s, *end_s, frames_s.len()), (0.0, 300.0, 10));
    assert!(draft.requests().is_empty());
}

#[tokio::test]
async fn spectemp_looks_closer_where_the_target_asks() {
    let (target, draft) = pair(demo_card, &[SEGMENT, ANSWER], &[PICKS]);
    let (rounds, outcome) = run(setup(spec("demo", &[], &[]), &target, &draft), vec![]).await.unwrap();
    assert_eq!(rounds.len(), 2);
    let dense = rounds[1].dense.as_ref().unwrap();
    assert_eq!((dense.frames.len(), dense.fps, dense.lowered), (60, 1.0, false));
    assert_eq!(rounds[1].chosen_by, Chooser::Draft);
    let evidence = Evidence { start_s: 15.0, end_s: 75.0, frames_s: vec![40.0, 41.0] };
    assert_eq!(outcome.answer.evidence, [evidence]);
    assert_eq!(
        (outcome.totals.rounds, outcome.totals.target_frames, outcome.totals.draft_frames),
        (2, 12, 60)
    );
    // Both sizes come from one read: the target sees 56 px, the draft 28 px.
    let sizes = |vlm: &ScriptedVlm, request: usize| {
        let messages = vlm.requests()[request].messages.clone();
        let widths = messages.iter().flat_map(|message| &message.parts).filter_map(|part| match part {
            Part::Image(image) => Some(image.width),
            _ => None,
        });
        widths.collect::<Vec<_>>()
    };
    assert_eq!(sizes(&target, 1), [56; 12]);
    assert_eq!(sizes(&draft, 0), [28; 60]);
    assert_eq!(rounds[1].io.requests, 1);
}

#[tokio::test]
async fn algorithm_1_ends_with_an_extra_turn() {
    let (target, draft) = pair(demo_card, &[SEGMENT], &[PICKS]);
    let setup = setup(spec("demo", &["final_answer=extra_turn"], &[]), &target, &draft);
    let (rounds, outcome) = run(setup, vec![]).await.unwrap();
    assert_eq!(rounds.len(), 1 + 3 + 1);
    let last = &rounds[4];
    assert_eq!((last.chosen_by, last.frames.len()), (Chooser::None, 0));
    assert_eq!(last.turns[0].kind, TurnKind::Final);
    assert_eq!(outcome.answer.evidence[0].frames_s, [40.0, 41.0]);
}

#[tokio::test]
async fn the_last_round_demands_the_answer() {
    let (target, draft) = pair(demo_card, &[SEGMENT, SEGMENT, SEGMENT, ANSWER], &[PICKS]);
    let (rounds, _) = run(setup(spec("demo", &[], &[]), &target, &draft), vec![]).await.unwrap();
    let kinds: Vec<_> = rounds.iter().map(|round| round.turns.last().unwrap().kind).collect();
    assert_eq!(kinds, [TurnKind::Regular, TurnKind::Regular, TurnKind::Regular, TurnKind::Final]);
}

#[tokio::test]
async fn the_baselines() {
    let (target, draft) = pair(demo_card, &[ANSWER], &[]);
    let uniform = spec("demo", &["strategy=uniform", "initial_frames=16"], &[]);
    let (rounds, _) = run(setup(uniform, &target, &draft), vec![]).await.unwrap();
    assert_eq!((rounds.len(), rounds[0].frames.len()), (1, 16));
    assert_eq!(rounds[0].turns[0].kind, TurnKind::Final);

    let (target, draft) = pair(demo_card, &[SEGMENT, ANSWER], &[]);
    let overrides = ["strategy=target-uniform", "max_rounds=1", "frames_per_round=6"];
    let (rounds, _) = run(setup(spec("demo", &overrides, &[]), &target, &draft), vec![]).await.unwrap();
    let wanted: Vec<f64> = rounds[1].frames.iter().map(|frame| frame.requested_s).collect();
    assert_eq!(wanted, [20.0, 30.0, 40.0, 50.0, 60.0, 70.0]);
    assert_eq!((rounds[1].chosen_by, rounds[1].turns[0].kind), (Chooser::Uniform, TurnKind::Final));
    assert!(draft.requests().is_empty());
}

#[tokio::test]
async fn perception_rounds_carry_intervals_over() {
    let perceive = "<think>hm</think><answer>3</answer><glue>[(100.0, 120.0)]</glue>";
    let target = Arc::new(ScriptedVlm::new(card("target"), move |request| {
        let text = request.messages.last().map(|message| format!("{:?}", message.parts)).unwrap_or_default();
        Ok(if text.contains("Answer now") { ANSWER.to_owned() } else { perceive.to_owned() })
    }));
    let draft = Arc::new(ScriptedVlm::lines(card("draft"), &[]));
    let spec = spec("paper16", &["strategy=perception-rounds"], &[]);
    let (rounds, outcome) = run(setup(spec, &target, &draft), vec![]).await.unwrap();
    assert_eq!(rounds.len(), 3);
    assert!(matches!(rounds[0].verdict, Verdict::Segment { .. }));
    let inside =
        |round: usize| rounds[round].frames.iter().filter(|f| (100.0..=120.0).contains(&f.pts_s)).count();
    assert_eq!((inside(0), inside(1), inside(2)), (1, 1, 1));
    // Each round is a fresh chat: system and one user's turn.
    assert!(target.requests().iter().all(|request| request.messages.len() == 2));
    assert_eq!(outcome.answer.evidence[0].start_s, 100.0);
    assert_eq!(outcome.answer.evidence[0].frames_s.len(), 1);
}

#[tokio::test]
async fn a_missing_draft_is_named() {
    let (target, draft) = pair(card, &[ANSWER], &[]);
    let mut setup = setup(spec("paper16", &[], &[]), &target, &draft);
    setup.draft = None;
    let error = Session::new(setup, vec![]).err().unwrap();
    assert!(error.to_string().contains("--draft"), "{error}");
    assert_eq!(error.class(), ErrorClass::Permanent);
}

#[tokio::test]
async fn cancellation_and_passing_faults() {
    let (target, draft) = pair(card, &[ANSWER], &[]);
    let cancelled = setup(spec("paper16", &[], &[]), &target, &draft);
    cancelled.cancel.cancel();
    let error = run(cancelled, vec![]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Cancelled);

    let fault = || VlmError::Backend("no answer from the device".to_owned());
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let target = Arc::new(ScriptedVlm::new(demo_card("target"), move |_| {
        match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Ok(SEGMENT.to_owned()),
            1 => Err(fault()),
            _ => Ok(ANSWER.to_owned()),
        }
    }));
    let draft = Arc::new(ScriptedVlm::lines(demo_card("draft"), &[PICKS]));
    let mut session = Session::new(setup(spec("demo", &[], &[]), &target, &draft), vec![]).unwrap();
    session.next_round().await.unwrap();
    let error = session.next_round().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().contains("target model"));
    // The same session goes on with the context it had.
    session.next_round().await.unwrap().unwrap();
    assert_eq!(target.requests().last().unwrap().messages.len(), 3);
    assert!(matches!(Session::finish(session), Ok(outcome) if outcome.answer.text == "7"));
}

#[tokio::test]
async fn there_is_no_answer_before_the_end() {
    let (target, draft) = pair(demo_card, &[SEGMENT], &[PICKS]);
    let mut session = Session::new(setup(spec("demo", &[], &[]), &target, &draft), vec![]).unwrap();
    session.next_round().await.unwrap();
    assert!(matches!(session.finish(), Err(SessionError::Unfinished { rounds: 1 })));
}

#[tokio::test]
async fn a_video_with_fewer_frames_than_wanted_shows_each_once() {
    let (target, draft) = pair(card, &[ANSWER], &[]);
    let mut setup = setup(spec("paper16", &["strategy=uniform"], &[]), &target, &draft);
    let still = StillFrames { fps: 0.02, ..StillFrames::lasting(200.0) };
    assert_eq!(still.facts().duration_s, 200.0);
    setup.frames = Arc::new(still);
    let (rounds, _) = run(setup, vec![]).await.unwrap();
    assert_eq!(
        rounds[0].frames.iter().map(|frame| frame.pts_s).collect::<Vec<_>>(),
        [0.0, 50.0, 100.0, 150.0]
    );
}

#[tokio::test]
async fn seeds_differ_by_turn_and_repeat_by_job() {
    let seeds = || async {
        let (target, draft) = pair(demo_card, &[SEGMENT, ANSWER], &[PICKS]);
        run(setup(spec("demo", &["temperature=0.7"], &[]), &target, &draft), vec![]).await.unwrap();
        let of = |vlm: &ScriptedVlm| vlm.requests().iter().map(|r| r.sampling.seed).collect::<Vec<_>>();
        [of(&target), of(&draft)].concat()
    };
    let first = seeds().await;
    assert_eq!(first, seeds().await);
    let distinct: std::collections::HashSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), 3);
}

#[tokio::test]
async fn only_the_target_is_asked_for_option_probabilities() {
    let (target, draft) = pair(demo_card, &[SEGMENT, ANSWER], &[PICKS]);
    let spec = spec("demo", &[], &["3", "7"]);
    let (rounds, outcome) = run(setup(spec, &target, &draft), vec![]).await.unwrap();
    assert_eq!(outcome.answer.choice, Some('B'));
    assert!(outcome.answer.confidence > 0.5 && outcome.answer.confidence < 1.0);
    let score = target.requests()[0].score.clone().unwrap();
    assert_eq!((score.after.as_str(), score.candidates), ("<answer>", vec!["3".to_owned(), "7".to_owned()]));
    assert!(draft.requests()[0].score.is_none());
    assert_eq!(rounds[1].turns[0].role, TurnRole::Draft);
}

#[test]
fn a_session_may_run_on_any_thread() {
    fn sends<T: Send>(value: T) -> T {
        value
    }
    let (target, draft) = pair(demo_card, &[ANSWER], &[]);
    let mut session = sends(Session::new(setup(spec("demo", &[], &[]), &target, &draft), vec![]).unwrap());
    drop(sends(session.next_round()));
}
