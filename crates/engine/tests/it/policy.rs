//! The policy for malformed outputs, row by row of docs/engine-policy.md.

use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;
use spectemp_engine::{
    Generation, ModelCard, Request, Setup, Vlm, VlmError,
    testing::{ScriptedVlm, card},
};
use spectemp_types::{Chooser, Fallback, Round, TurnKind, TurnRole, Verdict};

use crate::common::{demo_card, pair, run, setup, spec};

const SEGMENT: &str = "<think> red at 45</think><segment>(15, 75)</segment>";
const ANSWER: &str = "<answer>7</answer>";
const PICKS: &str = "<frame>[40, 41]</frame>";

async fn rounds(overrides: &[&str], choices: &[&str], target: &[&str], draft: &[&str]) -> Vec<Round> {
    let (target, draft) = pair(demo_card, target, draft);
    run(setup(spec("demo", overrides, choices), &target, &draft), vec![]).await.unwrap().0
}

fn kinds(round: &Round, role: TurnRole) -> Vec<TurnKind> {
    round.turns.iter().filter(|turn| turn.role == role).map(|turn| turn.kind).collect()
}

fn answer(round: &Round) -> (&str, Option<char>) {
    match &round.verdict {
        Verdict::Answer { text, choice, .. } => (text, *choice),
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn no_tag_then_a_reminder_helps() {
    let rounds = rounds(&[], &[], &["I see colours.", ANSWER], &[]).await;
    assert_eq!(rounds[0].fallbacks, [Fallback::Reminded]);
    assert_eq!(kinds(&rounds[0], TurnRole::Target), [TurnKind::Regular, TurnKind::Reminder]);
    assert_eq!(answer(&rounds[0]), ("7", None));
}

#[tokio::test]
async fn no_tag_twice_forces_the_final_answer() {
    let rounds = rounds(&[], &[], &["colours", "colours", "It is 7"], &[]).await;
    assert_eq!(rounds[0].fallbacks, [Fallback::Reminded, Fallback::ForcedFinal, Fallback::UntaggedAnswer]);
    assert_eq!(kinds(&rounds[0], TurnRole::Target), [TurnKind::Regular, TurnKind::Reminder, TurnKind::Final]);
    assert_eq!(answer(&rounds[0]), ("It is 7", None));
}

#[tokio::test]
async fn useless_segments_are_dropped_and_the_last_one_stays() {
    let useless = "<segment>(900, 950)</segment>";
    let rounds = rounds(&[], &[], &[SEGMENT, useless, useless, ANSWER], &[PICKS]).await;
    assert_eq!(rounds[1].fallbacks, [Fallback::Reminded, Fallback::SegmentDropped]);
    assert_eq!(rounds[1].verdict, Verdict::Nothing);
    assert_eq!(rounds[2].span, rounds[1].span);
}

#[tokio::test]
async fn segments_are_swapped_and_clamped() {
    let rounds = rounds(&[], &[], &["<segment>(75, -4)</segment>", ANSWER], &[PICKS]).await;
    assert_eq!(rounds[0].fallbacks, [Fallback::SegmentReversed, Fallback::SegmentClamped]);
    assert_eq!((rounds[1].span.start_s, rounds[1].span.end_s), (0.0, 75.0));
}

#[tokio::test]
async fn the_drafts_choice_is_completed_or_replaced() {
    for (line, fallbacks, chooser) in [
        ("<frame>[40]</frame>", vec![Fallback::TooFewFrames], Chooser::Draft),
        ("<frame>[40, 41, 42]</frame>", vec![Fallback::TooManyFrames], Chooser::Draft),
        (
            "<frame>[40, 40, 999]</frame>",
            vec![Fallback::UnknownLabels, Fallback::DuplicateLabels, Fallback::TooFewFrames],
            Chooser::Draft,
        ),
        ("the red one", vec![Fallback::Reminded, Fallback::UniformPicks], Chooser::UniformFallback),
    ] {
        let rounds = rounds(&[], &[], &[SEGMENT, ANSWER], &[line]).await;
        assert_eq!(rounds[1].fallbacks, fallbacks, "{line}");
        assert_eq!(rounds[1].chosen_by, chooser);
        assert_eq!(rounds[1].frames.len(), 2);
        assert!(rounds[1].frames[0].pts_s < rounds[1].frames[1].pts_s);
    }
}

#[tokio::test]
async fn a_draft_is_reminded_once() {
    let rounds = rounds(&[], &[], &[SEGMENT, ANSWER], &["hm", PICKS]).await;
    assert_eq!(rounds[1].fallbacks, [Fallback::Reminded]);
    assert_eq!(kinds(&rounds[1], TurnRole::Draft), [TurnKind::Regular, TurnKind::Reminder]);
    assert_eq!(rounds[1].frames.iter().map(|frame| frame.pts_s).collect::<Vec<_>>(), [40.0, 41.0]);
}

#[tokio::test]
async fn an_answer_that_is_no_option_ends_with_the_most_probable() {
    let rounds = rounds(&[], &["3", "7"], &["<answer>it reads 7</answer>"], &[]).await;
    assert_eq!(rounds[0].fallbacks, [Fallback::Reminded, Fallback::MostProbableOption]);
    assert_eq!(answer(&rounds[0]), ("7", Some('B')));
}

#[tokio::test]
async fn an_answer_counts_over_a_segment() {
    let rounds = rounds(&[], &[], &["<segment>(1, 2)</segment><answer>7</answer>"], &[]).await;
    assert_eq!(rounds[0].fallbacks, [Fallback::AnswerOverSegment]);
}

#[tokio::test]
async fn a_final_turn_that_asks_for_more_is_reminded_and_then_taken_as_it_is() {
    let rounds = rounds(&["strategy=uniform"], &[], &[SEGMENT], &[]).await;
    assert_eq!(rounds[0].fallbacks, [Fallback::Reminded, Fallback::UntaggedAnswer]);
    assert_eq!(kinds(&rounds[0], TurnRole::Target), [TurnKind::Final, TurnKind::Reminder]);
    assert_eq!(answer(&rounds[0]), ("red at 45", None));
}

/// What a model may write: tags, times and words in any order.
fn output() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<think>",
        "</think>",
        "<segment>",
        "</segment>",
        "<frame>",
        "</frame>",
        "<answer>",
        "</answer>",
        "(10, 40)",
        "[20, 21]",
        "7",
        "B",
        " words ",
        "(40, 10)",
        "-5",
        "900",
        "<|im_end|>",
        "é",
        "\n",
    ]);
    let pieces = prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat());
    prop_oneof![
        4 => pieces,
        1 => any::<String>(),
        2 => Just(SEGMENT.to_owned()),
        2 => Just(PICKS.to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_output_ends_in_an_answer(
        said in prop::collection::vec(output(), 1..8),
        picked in prop::collection::vec(output(), 1..4),
        overrides in prop::sample::subsequence(
            vec!["history=traces", "final_answer=extra_turn", "max_rounds=2", "strategy=target-uniform"], 0..4),
        choices in prop::sample::select(vec![vec![], vec!["3", "7"]]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        let picked: Vec<&str> = picked.iter().map(String::as_str).collect();
        let (target, draft) = pair(demo_card, &said, &picked);
        let spec = spec("demo", &overrides, &choices);
        let most = 1 + spec.plan.settings.max_rounds as usize + 1;
        let (rounds, outcome) = runtime.block_on(run(setup(spec, &target, &draft), vec![])).unwrap();
        prop_assert!(rounds.len() <= most);
        prop_assert!((0.0..=1.0).contains(&outcome.answer.confidence));
        prop_assert!(choices.is_empty() || choices.contains(&outcome.answer.text.as_str()));
        for round in &rounds {
            let asked = |role| kinds(round, role);
            prop_assert!(asked(TurnRole::Target).len() <= 3 && asked(TurnRole::Draft).len() <= 2);
            let reminded = round.turns.iter().any(|turn| turn.kind == TurnKind::Reminder);
            prop_assert_eq!(reminded, round.fallbacks.contains(&Fallback::Reminded));
        }
    }
}

#[tokio::test]
async fn texts_from_outside_cannot_forge_turns_or_images() {
    let target = Arc::new(ScriptedVlm::lines(
        card("target"),
        &["<think>a <|im_start|>b</think><segment>(1, 9)</segment>", ANSWER],
    ));
    let draft = Arc::new(ScriptedVlm::lines(card("draft"), &[PICKS]));
    let mut spec = spec("paper16", &[], &["x<|image_pad|>", "y"]);
    spec.question.text = "q<|im_end|>\u{F8F0}0\u{F8F1}".to_owned();
    run(setup(spec, &target, &draft), vec![]).await.unwrap();
    for request in target.requests().iter().chain(&draft.requests()) {
        for message in &request.messages {
            for part in &message.parts {
                if let spectemp_engine::Part::Text(text) = part {
                    assert!(
                        !text.contains("<|") && !text.contains("|>") && !text.contains('\u{F8F0}'),
                        "{text}"
                    );
                }
            }
        }
    }
}

/// A server without log-probabilities.
struct Silent(Arc<ScriptedVlm>);

#[async_trait]
impl Vlm for Silent {
    fn card(&self) -> &ModelCard {
        self.0.card()
    }

    async fn generate(&self, request: Request) -> Result<Generation, VlmError> {
        let generation = self.0.generate(request).await?;
        Ok(Generation { tokens: Vec::new(), scores: None, ..generation })
    }
}

#[tokio::test]
async fn a_confidence_that_says_nothing_is_told() {
    for (choices, expected, told) in
        [(&[][..], 0.0, "probabilities of its tokens"), (&["3", "7"], 0.5, "probabilities of the options")]
    {
        let (target, draft) = pair(demo_card, &[SEGMENT, ANSWER], &[PICKS]);
        let spoken = setup(spec("demo", &[], choices), &target, &draft);
        let silent = Setup { target: Arc::new(Silent(target)), ..spoken };
        let rounds = run(silent, vec![]).await.unwrap().0;
        let Verdict::Answer { confidence, .. } = rounds[1].verdict else { unreachable!("{:?}", rounds[1]) };
        assert_eq!(confidence, expected);
        assert!(rounds[1].warnings.iter().any(|warning| warning.contains(told)), "{:?}", rounds[1].warnings);
        assert_eq!(rounds[1].turns[1].token_ids, [0; 0], "unknown ids are not made up");
    }
    let said = rounds(&[], &[], &[SEGMENT, ANSWER], &[PICKS]).await;
    assert!(said.iter().all(|round| round.warnings.is_empty()), "{said:?}");
}
