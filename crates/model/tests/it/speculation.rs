//! Speculative decoding against plain decoding: the same tokens, whoever guesses and however.

use std::collections::BTreeMap;
use std::path::Path;

use spectemp_engine::{
    AnswerForm, Decimal, Ending, Generation, Grammar, Message, Part, Request, Role, Sampling, Times, Vlm,
};
use spectemp_model::{LoadOptions, ModelFiles, ProposerChoice, QwenVlm, Speculation, SpeculationFigures};

use crate::forms::random_model;
use crate::support::{assert_same, assert_tokens, data, demo, image, load, message, options, request, text};

const CHAIN: [usize; 4] = [1; 4];
const TREE: [usize; 3] = [3, 4, 2];

/// A question after some frames, with an earlier turn to look up.
fn question(frames: u32, colour: &str) -> Vec<Message> {
    let mut parts = vec![text("0 ")];
    for frame in 0..frames {
        parts.push(text(&format!("{}", 5 + frame * 10)));
        parts.push(Part::Image(image(56, 56, frame)));
    }
    parts.push(text(&format!("{}\nWhat digit flashes in the {colour} scene?", frames * 10 + 5)));
    let said = "<think> red at 5</think><segment>(0, 10)</segment>";
    vec![
        message(Role::User, parts),
        message(Role::Assistant, vec![text(said)]),
        message(Role::User, vec![text("\nAnswer now.")]),
    ]
}

fn speculating(target: &Path, draft: &Path, speculation: Speculation) -> QwenVlm {
    let draft = ModelFiles::folder(draft);
    load(target).speculating(speculation, Some(&draft), &options()).expect("it can guess")
}

fn by(proposer: ProposerChoice, widths: &[usize], prune: f64) -> Speculation {
    Speculation { widths: widths.to_vec(), prune, most_sequences: Some(8), ..Speculation::by(proposer) }
}

fn held(messages: Vec<Message>, tokens: u32) -> Request {
    let seconds = |units| Decimal { units, decimals: 0 };
    let segment = Ending::Segment(Times { first: seconds(299), second: seconds(300) });
    let grammar = Grammar { endings: vec![Ending::Answer(AnswerForm::Free), segment] };
    Request { stops: grammar.stops(), grammar: Some(grammar), ..request(messages, tokens) }
}

fn drawn(request: Request, seed: u64) -> Request {
    Request { sampling: Sampling { temperature: 0.9, top_p: 0.95, seed }, ..request }
}

/// Free, held to a form, drawn, and both.
fn requests() -> Vec<Request> {
    let free = || request(question(4, "red"), 24);
    vec![free(), held(question(4, "blue"), 64), drawn(free(), 7), drawn(held(question(3, "red"), 64), 8)]
}

async fn generate(model: &QwenVlm, request: &Request) -> Generation {
    model.generate(request.clone()).await.expect("it answers")
}

/// Every proposer, prune rate and shape gives what plain decoding gives; what was guessed is counted.
async fn agrees(target: &Path, draft: &Path, rates: &[f64]) -> Vec<(ProposerChoice, SpeculationFigures)> {
    let mut figures = Vec::new();
    let mut plain = Vec::new();
    let model = load(target);
    for request in requests() {
        plain.push(generate(&model, &request).await);
    }
    for proposer in ProposerChoice::ALL {
        for &prune in rates {
            for widths in [&CHAIN[..], &TREE] {
                let model = speculating(target, draft, by(proposer, widths, prune));
                for (request, plain) in requests().iter().zip(&plain) {
                    let speculated = generate(&model, request).await;
                    let case = format!("{proposer} {widths:?} {prune} {:?}", request.sampling);
                    assert_tokens(&speculated.tokens, &plain.tokens, &case);
                    assert_same(&speculated, plain);
                }
                figures.push((proposer, model.speculation_figures()));
            }
        }
    }
    figures
}

fn sum(figures: &[(ProposerChoice, SpeculationFigures)], of: ProposerChoice) -> SpeculationFigures {
    figures.iter().filter(|(proposer, _)| *proposer == of).fold(
        SpeculationFigures::default(),
        |sum, (_, one)| SpeculationFigures {
            calls: sum.calls + one.calls,
            guessed: sum.guessed + one.guessed,
            accepted: sum.accepted + one.accepted,
            missed: sum.missed + one.missed,
        },
    )
}

#[tokio::test]
async fn the_demonstration_pair_speculates_without_changing_a_token() {
    let figures = agrees(&demo("target"), &demo("draft"), &[0.0, 0.5, 0.8, 0.9]).await;
    for proposer in ProposerChoice::ALL {
        let sum = sum(&figures, proposer);
        assert!(sum.calls > 0 && sum.guessed >= sum.calls, "{proposer} {sum:?}");
    }
    // With all visual tokens the sparse side is the model itself.
    let sparse = sum(&figures, ProposerChoice::Sparse);
    assert!(sparse.accepted > 0, "{sparse:?}");
}

#[tokio::test]
async fn random_weights_speculate_without_changing_a_token() {
    let target = random_model(&data("untied/model"), 5);
    let draft = random_model(&data("untied/model"), 6);
    let figures = agrees(target.path(), draft.path(), &[0.0, 0.9]).await;
    let draft = sum(&figures, ProposerChoice::Draft);
    assert!(draft.missed > 0, "{draft:?}");
}

#[tokio::test]
async fn the_golden_checkpoint_speculates_with_itself_and_everything_comes_true() {
    let target = data("untied/model");
    let figures = agrees(&target, &target, &[0.0]).await;
    for proposer in [ProposerChoice::Sparse, ProposerChoice::Draft] {
        let sum = sum(&figures, proposer);
        assert!(sum.agreement() > Some(0.5), "{proposer} {sum:?}");
    }
    let model = speculating(&target, &target, by(ProposerChoice::Draft, &CHAIN, 0.0));
    generate(&model, &request(question(4, "red"), 24)).await;
    let greedy = model.speculation_figures();
    assert_eq!(greedy.missed, 0, "{greedy:?}");
    // The first token comes with the prompt; then five a call: four guesses and the one after them.
    assert_eq!((greedy.calls, greedy.accepted), (5, 18));
}

/// A draft's cache of a prompt is made chunk by chunk; meanwhile the target writes without guesses.
#[tokio::test]
async fn a_drafter_in_pieces_guesses_later_and_as_well() {
    let target = data("untied/model");
    let request = request(question(4, "red"), 24);
    let plain = generate(&load(&target), &request).await;
    let mut calls = Vec::new();
    for prefill_chunk in [512, 32, 8] {
        let options = LoadOptions { prefill_chunk, ..options() };
        let speculation = by(ProposerChoice::Draft, &CHAIN, 0.0);
        let draft = ModelFiles::folder(&target);
        let model = load(&target).speculating(speculation, Some(&draft), &options).expect("it can guess");
        assert_same(&generate(&model, &request).await, &plain);
        let figures = model.speculation_figures();
        assert_eq!(figures.missed, 0, "{prefill_chunk} {figures:?}");
        calls.push(figures.calls);
    }
    assert!(calls[0] > calls[1] && calls[1] > calls[2] && calls[2] > 0, "{calls:?}");
}

#[tokio::test]
async fn sequences_together_speculate_as_alone_or_not_at_all() {
    let plain = load(&demo("target"));
    let mut expected = Vec::new();
    for request in requests() {
        expected.push(generate(&plain, &request).await);
    }
    for most_sequences in [Some(1), Some(8), None] {
        let speculation = Speculation { most_sequences, ..by(ProposerChoice::Draft, &TREE, 0.5) };
        let model = speculating(&demo("target"), &demo("draft"), speculation);
        let all = requests();
        let together = tokio::join!(
            generate(&model, &all[0]),
            generate(&model, &all[1]),
            generate(&model, &all[2]),
            generate(&model, &all[3]),
        );
        let together = [together.0, together.1, together.2, together.3];
        for (speculated, expected) in together.iter().zip(&expected) {
            assert_same(speculated, expected);
        }
    }
}

/// A level without guesses ends the tree before it, and a prune rate beyond all or nothing is all or nothing.
#[tokio::test]
async fn levels_of_no_width_and_rates_out_of_range_are_no_fault() {
    let plain = load(&demo("target"));
    let mut expected = Vec::new();
    for request in requests() {
        expected.push(generate(&plain, &request).await.tokens);
    }
    for proposer in ProposerChoice::ALL {
        let cases: [(&[usize], f64, bool); 5] = [
            (&[], 0.5, false),
            (&[0, 2], 0.5, false),
            (&[2, 0, 3], 0.5, true),
            (&CHAIN, 7.0, true),
            (&CHAIN, -1.0, true),
        ];
        for (widths, prune, guesses) in cases {
            let model = speculating(&demo("target"), &demo("draft"), by(proposer, widths, prune));
            for (request, expected) in requests().iter().zip(&expected) {
                let speculated = generate(&model, request).await;
                assert_tokens(&speculated.tokens, expected, &format!("{proposer} {widths:?} {prune}"));
            }
            let figures = model.speculation_figures();
            assert_eq!(figures.calls > 0, guesses, "{proposer} {widths:?} {prune}: {figures:?}");
        }
    }
}

/// The second turn of a conversation finds the cache as plain decoding leaves it.
#[tokio::test]
async fn the_next_turn_reuses_what_was_decided() {
    let plain = load(&demo("target"));
    let model = speculating(&demo("target"), &demo("draft"), by(ProposerChoice::Draft, &TREE, 0.5));
    let mut turns = Vec::new();
    for model in [&plain, &model] {
        let mut messages = question(5, "red");
        let first = generate(model, &request(messages.clone(), 24)).await;
        let said = Part::Generated { text: first.text.clone(), token_ids: first.token_ids() };
        messages
            .extend([message(Role::Assistant, vec![said]), message(Role::User, vec![text("\nAnswer now.")])]);
        turns.push(generate(model, &request(messages, 24)).await);
    }
    assert_same(&turns[0], &turns[1]);
    assert!(
        turns[1].counts.reused + 1 >= turns[0].counts.reused,
        "{:?} {:?}",
        turns[0].counts,
        turns[1].counts
    );
}

/// Drawn tokens follow the model's own distribution: Pearson's chi-square of the second token, which is decided in a row
/// among guesses, over many seeds, against the probabilities that the model gave it after the first.
#[tokio::test]
async fn drawn_tokens_follow_the_models_distribution() {
    const DRAWS: u64 = 2500;
    let target = data("untied/model");
    let model = speculating(&target, &target, by(ProposerChoice::Draft, &[6, 6], 0.0));
    let ask = |seed| {
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, seed };
        Request { sampling, ..request(question(1, "red"), 3) }
    };
    // By first token: draws, and for each second token its probability and how often it came.
    let mut seen = BTreeMap::<u32, (u64, BTreeMap<u32, (f64, u64)>)>::new();
    for seed in 0..DRAWS {
        let generation = generate(&model, &ask(seed)).await;
        let [first, second, ..] = generation.tokens[..] else { continue };
        let (draws, seconds) = seen.entry(first.id.expect("an id")).or_default();
        *draws += 1;
        seconds.entry(second.id.expect("an id")).or_insert((second.logprob.exp(), 0)).1 += 1;
    }
    assert!(model.speculation_figures().accepted > 100);
    let (mut chi_square, mut degrees) = (0.0_f64, 0.0_f64);
    for (draws, seconds) in seen.values() {
        // Tokens that are expected at least five times by themselves, all others together.
        let mut rest = (*draws as f64, *draws);
        for (probability, count) in seconds.values() {
            let expected = probability * *draws as f64;
            if expected >= 5.0 {
                chi_square += (*count as f64 - expected).powi(2) / expected;
                degrees += 1.0;
                rest = (rest.0 - expected, rest.1 - count);
            }
        }
        if rest.0 >= 5.0 {
            chi_square += (rest.1 as f64 - rest.0).powi(2) / rest.0;
        } else if rest.0 < *draws as f64 {
            degrees -= 1.0;
        }
    }
    assert!(degrees >= 10.0, "{degrees} degrees of freedom");
    // The 99.9th percentile, by Wilson and Hilferty.
    let spread = 2.0 / (9.0 * degrees);
    let bound = degrees * (1.0 - spread + 3.09 * spread.sqrt()).powi(3);
    assert!(chi_square < bound, "{chi_square} is over {bound} with {degrees} degrees of freedom");
}

#[test]
fn a_draft_that_reads_other_tokens_is_refused_by_name() {
    let draft = ModelFiles::folder(demo("draft")).with_name("small");
    let guess = |draft| {
        load(&data("untied/model")).speculating(by(ProposerChoice::Draft, &CHAIN, 0.5), draft, &options())
    };
    let error = guess(Some(&draft)).expect_err("other tokens").to_string();
    assert!(error.contains("small") && error.contains("tokenizer"), "{error}");
    let error = guess(None).expect_err("no draft").to_string();
    assert!(error.contains("--draft"), "{error}");
    assert!("some".parse::<ProposerChoice>().is_err());
    assert_eq!("sparse".parse::<ProposerChoice>().expect("known").to_string(), "sparse");
}
