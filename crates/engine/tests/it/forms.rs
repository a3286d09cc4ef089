//! The form of each turn: what a model is held to, and that all of it can be read.

use std::sync::Arc;

use proptest::prelude::*;
use spectemp_engine::{
    AnswerForm, Ending, ModelCard, Request, Setup, VlmError,
    testing::{ScriptedVlm, StillFrames, admitted, card},
};
use spectemp_types::{Fallback, Round};

use crate::common::{demo_card, pair, run, setup, spec};

/// The first ending's pattern of each request, in order.
fn endings(requests: &[Request]) -> Vec<String> {
    let pattern = |request: &Request| {
        let grammar = request.grammar.as_ref().unwrap();
        let whole = grammar.pattern(Some(7)).regex();
        whole.split_once(r"<\/think>").unwrap().1.to_owned()
    };
    requests.iter().map(pattern).collect()
}

#[tokio::test]
async fn each_turn_has_the_form_that_belongs_there() {
    let segment = "<think>a</think><segment>(15, 18)</segment>";
    let (target, draft) =
        pair(demo_card, &[segment, "<think>b</think><answer>7</answer>"], &["<frame>[16]</frame>"]);
    run(setup(spec("demo", &["max_rounds=1"], &["3", "7"]), &target, &draft), vec![]).await.unwrap();
    let requests = target.requests();
    let first = requests[0].grammar.as_ref().unwrap();
    let options = AnswerForm::Options(vec!["3".to_owned(), "7".to_owned()]);
    assert_eq!(first.endings[0], Ending::Answer(options.clone()));
    assert!(
        matches!(&first.endings[1], Ending::Segment(times) if times.first.value() == 299.0 && times.second.value() == 300.0)
    );
    assert_eq!(requests[0].stops, ["</answer>", "</segment>"]);
    assert_eq!(requests[1].grammar.as_ref().unwrap().endings, [Ending::Answer(options)]);
    assert_eq!(requests[1].stops, ["</answer>"]);
    assert_eq!(endings(&draft.requests()), [r"(<frame>\[(15|16|17)(, (15|16|17)){0,1}\]<\/frame>)"]);
    assert_eq!(requests[0].think_tokens, 64);
}

#[tokio::test]
async fn without_constraint_turns_still_end_at_their_tags() {
    let (target, draft) = pair(demo_card, &["<answer>7</answer>"], &[]);
    run(setup(spec("demo", &["constrain=off", "think_tokens=9"], &[]), &target, &draft), vec![])
        .await
        .unwrap();
    let request = &target.requests()[0];
    assert_eq!((request.grammar.as_ref(), request.think_tokens), (None, 9));
    assert_eq!(request.stops, ["</answer>", "</segment>"]);
}

#[test]
fn a_closing_tag_inside_a_thought_ends_nothing() {
    let (target, _) = pair(card, &["x"], &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let draft = Arc::new(ScriptedVlm::lines(card("draft"), &["x"]));
    runtime.block_on(run(setup(spec("demo", &["strategy=uniform"], &[]), &target, &draft), vec![])).unwrap();
    let request = &target.requests()[0];
    for (text, done) in [
        ("<think>I could write <answer>3</answer>", false),
        ("<think>I could write <answer>3</answer></think>", false),
        ("<think>I could write <answer>3</answer></think><answer>4</answer>", true),
        ("<think>so</think><answer>3", false),
        ("<think>so</think><answer>3</answer>", true),
        ("<answer>3</answer>\n", true),
        ("", false),
    ] {
        assert_eq!(request.is_done(text), done, "{text}");
    }
}

/// A model that writes anything that its turn's form admits.
fn any_writer(card: fn(&str) -> ModelCard, seed: u64) -> ScriptedVlm {
    ScriptedVlm::new(card("any"), move |request| {
        let grammar = request.grammar.as_ref().ok_or_else(|| VlmError::Request("no grammar".to_owned()))?;
        Ok(admitted(&grammar.pattern(Some(40)), seed ^ request.sampling.seed))
    })
}

/// Rounds of a session whose models write what the form admits.
fn rounds(setup: Setup) -> Vec<Round> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(run(setup, vec![])).unwrap().0
}

/// What a form cannot rule out: times may stand in either order and be equal, a label may be named twice, and fewer
/// than wanted.
const LEFT: [Fallback; 4] =
    [Fallback::SegmentReversed, Fallback::SegmentWidened, Fallback::DuplicateLabels, Fallback::TooFewFrames];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn whatever_the_form_admits_is_read_without_a_reminder(
        seed in any::<u64>(),
        strategy in prop::sample::select(vec!["spectemp", "uniform", "target-uniform", "perception-rounds"]),
        history in prop::sample::select(vec!["full", "traces"]),
        last in prop::sample::select(vec!["extra_turn", "in_last_round"]),
        choices in prop::sample::select(vec![vec![], vec!["a cat", "a dog (black)", "\"x\" / y"]]),
        templates in any::<bool>(),
        duration_s in prop::sample::select(vec![0.5, 3.0, 9.96, 61.2, 300.0, 3601.5]),
    ) {
        let card = if templates { demo_card } else { card };
        let overrides = [format!("strategy={strategy}"), format!("history={history}"), format!("final_answer={last}")];
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let model = || Arc::new(any_writer(card, seed));
        let mut setup = setup(spec("demo", &overrides, &choices), &model(), &model());
        setup.frames = Arc::new(StillFrames::lasting(duration_s));
        for round in rounds(setup) {
            let odd: Vec<_> = round.fallbacks.iter().filter(|fallback| !LEFT.contains(fallback)).collect();
            prop_assert!(odd.is_empty(), "{odd:?} in {:?}", round.turns);
        }
    }
}
