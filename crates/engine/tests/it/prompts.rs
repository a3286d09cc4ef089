//! Rendered prompts of both template sets, and a whole trace, as snapshots.

use std::sync::Arc;

use spectemp_engine::testing::{ScriptedVlm, StillFrames, card, transcript};
use spectemp_types::{JobId, Trace, TraceVideo};

use crate::common::{demo_card, pair, run, setup, spec};

const SEGMENT: &str = "<think> red at 45</think><segment>(15, 75)</segment>";
const ANSWER: &str = "<think> digit 7</think><answer>7</answer>";
const PICKS: &str = "<think> digit at 40</think><frame>[40, 41]</frame>";

fn last(vlm: &ScriptedVlm) -> String {
    transcript(&vlm.requests().last().unwrap().messages)
}

#[tokio::test]
async fn the_demonstration_pairs_prompts() {
    let (target, draft) = pair(demo_card, &[SEGMENT, SEGMENT, SEGMENT, ANSWER], &[PICKS]);
    run(setup(spec("demo", &[], &[]), &target, &draft), vec![]).await.unwrap();
    insta::assert_snapshot!("demo_target", last(&target));
    let (target, draft) =
        pair(demo_card, &["<think> red at 45</think><segment>(15, 20)</segment>", ANSWER], &[PICKS]);
    run(setup(spec("demo", &[], &[]), &target, &draft), vec![]).await.unwrap();
    insta::assert_snapshot!("demo_draft", last(&draft));
    let (target, draft) = pair(demo_card, &[ANSWER], &[]);
    run(setup(spec("demo", &["strategy=uniform"], &[]), &target, &draft), vec![]).await.unwrap();
    insta::assert_snapshot!("demo_uniform", last(&target));
}

#[tokio::test]
async fn the_built_in_prompts() {
    let short = "<think>The red scene is around 45 s.</think><segment>(41.5, 45)</segment>";
    let (target, draft) = pair(card, &[short, "hm", short, short], &["<frame>41.5</frame>"]);
    let choices = ["three", "seven"];
    let full = spec("paper16", &["initial_frames=3", "max_rounds=2"], &choices);
    run(setup(full, &target, &draft), vec![]).await.unwrap();
    insta::assert_snapshot!("stock_target", last(&target));
    insta::assert_snapshot!("stock_draft", last(&draft));
}

#[tokio::test]
async fn the_built_in_prompts_without_history() {
    let target = Arc::new(ScriptedVlm::lines(
        card("target"),
        &["<think>red at 45 s</think><segment>(41.5, 45)</segment>"],
    ));
    let draft = Arc::new(ScriptedVlm::lines(card("draft"), &["<frame>41.5, 43.5</frame>"]));
    let traces = spec("paper16", &["initial_frames=3", "max_rounds=2", "history=traces"], &[]);
    run(setup(traces, &target, &draft), vec![]).await.unwrap();
    let requests = target.requests();
    insta::assert_snapshot!("stock_traces", transcript(&requests[2].messages));
    // The extra turn shows the last frames again.
    insta::assert_snapshot!("stock_traces_final", transcript(&requests[3].messages));
}

#[tokio::test]
async fn perception_prompts() {
    let line = "<think>a</think><answer>b</answer><glue>[(10, 20)]</glue>";
    let (target, draft) = pair(card, &[line], &[]);
    let spec = spec("paper16", &["strategy=perception-rounds", "initial_frames=3", "max_rounds=2"], &[]);
    run(setup(spec, &target, &draft), vec![]).await.unwrap();
    let requests = target.requests();
    insta::assert_snapshot!("stock_perception", transcript(&requests[0].messages));
    insta::assert_snapshot!("stock_perception_final", transcript(&requests[1].messages));
}

#[tokio::test]
async fn a_trace() {
    let (target, draft) = pair(demo_card, &[SEGMENT, ANSWER], &["<frame>[40, 40]</frame>"]);
    let spec = spec("demo", &["initial_frames=2", "dense_cap=4"], &["3", "7"]);
    let (mut rounds, outcome) = run(setup(spec.clone(), &target, &draft), vec![]).await.unwrap();
    for span in rounds.iter_mut().flat_map(|round| &mut round.timeline) {
        assert!(span.began_ms <= span.ended_ms);
        // The clock's; the rest repeats itself.
        (span.began_ms, span.ended_ms) = (0.0, 0.0);
    }
    for round in &mut rounds {
        assert!(round.zero_unix_ms.take().is_some());
    }
    let facts = StillFrames::lasting(300.0).facts;
    let trace = Trace {
        version: Trace::VERSION,
        job_id: "01890a5d-ac96-774b-bcce-b302099a8057".parse::<JobId>().unwrap(),
        video: TraceVideo {
            uri: spec.video.redacted(),
            etag: Some("v1".to_owned()),
            bytes: 1,
            duration_s: facts.duration_s,
            width: facts.width,
            height: facts.height,
        },
        spec,
        target: demo_card("target").revision,
        draft: Some(demo_card("draft").revision),
        rounds,
        answer: outcome.answer,
        totals: outcome.totals,
    };
    insta::assert_json_snapshot!("trace", trace);
}
