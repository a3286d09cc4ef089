use std::path::Path;

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spectemp_engine::{AnswerForm, Decimal, Ending, Sampling, Times};
use spectemp_types::TurnFinish;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Config;
use crate::files::ModelFiles;
use crate::sample::argmax;
use crate::writer::{Writer, Written};

const FOLDERS: [&str; 2] = ["tests/data/untied/model", "../../models/demo/target"];

fn constrainer(folder: &str) -> (Arc<Constrainer>, Arc<Tokenizer>, usize) {
    let files = ModelFiles::folder(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let config = Config::parse(&files.require("config.json").unwrap()).unwrap();
    let tokenizer = Arc::new(Tokenizer::open(&files).unwrap());
    let vocab = config.text.vocab_size;
    (Arc::new(Constrainer::new(Arc::clone(&tokenizer), vocab).unwrap()), tokenizer, vocab)
}

fn grammars() -> Vec<Grammar> {
    let decimal = |units, decimals| Decimal { units, decimals };
    let times = Times { first: decimal(2999, 1), second: decimal(3000, 1) };
    let whole = Times { first: decimal(299, 0), second: decimal(300, 0) };
    let options = |texts: &[&str]| AnswerForm::Options(texts.iter().map(|text| (*text).to_owned()).collect());
    let labels = ["9.5", "390", "391.25"].map(str::to_owned).to_vec();
    [
        vec![Ending::Answer(AnswerForm::Free), Ending::Segment(times)],
        vec![Ending::Answer(options(&["A", "B", "C"])), Ending::Segment(whole)],
        vec![Ending::Answer(AnswerForm::Free)],
        vec![Ending::Answer(options(&["a (red) cat / dog", "déjà \"vu\"\n|", "7"]))],
        vec![Ending::Frames { labels, most: 3 }],
        vec![Ending::AnswerAndGlue { answer: AnswerForm::Free, times: whole, most: 2 }],
    ]
    .map(|endings| Grammar { endings })
    .to_vec()
}

fn request(grammar: &Grammar, max_new_tokens: u32, think_tokens: u32) -> Request {
    Request {
        messages: Vec::new(),
        sampling: Sampling { temperature: 0.0, top_p: 1.0, seed: 0 },
        max_new_tokens,
        stops: grammar.stops(),
        grammar: Some(grammar.clone()),
        think_tokens,
        score: None,
        cancel: CancellationToken::new(),
    }
}

/// What stands at a place, the same however often it is asked for.
fn row(seed: u64, place: usize, vocab: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ (place as u64) << 32);
    (0..vocab).map(|_| random.random::<f32>()).collect()
}

/// Writes a turn with random logits.
fn written(folder: &str, request: &Request, seed: u64) -> Written {
    let (constrainer, tokenizer, vocab) = constrainer(folder);
    let grammar = request.grammar.as_ref().unwrap();
    let constraint = constrainer.constraint(grammar, request).unwrap();
    let mut writer = Writer::new(request, &tokenizer, &Arc::from([]), Some(constraint)).unwrap();
    while !writer.is_finished() {
        let row = row(seed, writer.ids().len(), vocab);
        writer.take(&row, request).unwrap();
    }
    writer.finish().unwrap()
}

fn matches(grammar: &Grammar, text: &str) -> bool {
    regex::Regex::new(&format!("^({})$", grammar.pattern(None).regex())).unwrap().is_match(text)
}

#[test]
fn forced_tokens_are_those_that_the_masks_would_leave() {
    for folder in FOLDERS {
        let (constrainer, tokenizer, vocab) = constrainer(folder);
        for (number, grammar) in grammars().iter().enumerate() {
            let request = request(grammar, 120, 20);
            let (mut masked_only, mut ids) = (constrainer.constraint(grammar, &request).unwrap(), Vec::new());
            while !masked_only.is_done() {
                let row = row(number as u64, ids.len(), vocab);
                let id = argmax(&masked_only.masked(&row, 120 - ids.len()).unwrap()).unwrap();
                masked_only.accept(id).unwrap();
                ids.push(id);
            }
            let text = tokenizer.decode(&ids, false).unwrap();
            assert!(matches(grammar, &text), "{folder} {text}");
            let forced: Vec<u32> = written(folder, &request, number as u64).ids;
            assert_eq!(forced, ids, "{folder} {text}");
        }
    }
}

#[test]
fn most_of_the_tags_needs_no_draw() {
    let (constrainer, ..) = constrainer(FOLDERS[1]);
    let grammar = &grammars()[2];
    let mut constraint = constrainer.constraint(grammar, &request(grammar, 64, 64)).unwrap();
    let tokenizer = &constrainer.factory.tok_env().clone();
    let spelled = |ids: &[u32]| String::from_utf8(tokenizer.tok_trie().decode(ids)).unwrap();
    assert_eq!(spelled(&constraint.take_forced().unwrap()), "<think");
    for id in tokenizer.tokenize("> digit</") {
        constraint.accept(id).unwrap();
    }
    assert_eq!(spelled(&constraint.take_forced().unwrap()), "think><answer");
}

#[test]
fn logits_keep_their_values_and_special_tokens_are_never_written() {
    for folder in FOLDERS {
        let (constrainer, tokenizer, vocab) = constrainer(folder);
        let grammar = &grammars()[0];
        let mut constraint = constrainer.constraint(grammar, &request(grammar, 64, 64)).unwrap();
        for id in tokenizer.encode("<think> a").unwrap() {
            constraint.accept(id).unwrap();
        }
        let row = row(1, 0, vocab);
        let masked = constraint.masked(&row, 64).unwrap();
        let specials = ["<|im_end|>", "<|endoftext|>", "<|image_pad|>"];
        for special in specials {
            assert_eq!(masked[tokenizer.encode(special).unwrap()[0] as usize], f32::NEG_INFINITY);
        }
        let kept = masked.iter().zip(&row).filter(|(masked, _)| masked.is_finite());
        assert!(kept.clone().count() > 100);
        assert!(kept.into_iter().all(|(masked, row)| masked == row));
        assert!(constraint.masked(&row[1..], 64).is_err());
    }
}

#[test]
fn a_thought_ends_with_its_budget() {
    // The token that ends the opening tag may begin the thought.
    for (think_tokens, most) in [(0, 1), (5, 6), (200, 120)] {
        let grammar = &grammars()[1];
        let generation = written(FOLDERS[0], &request(grammar, 120, think_tokens), 3);
        let text = &generation.text;
        assert!(matches(grammar, text), "{text}");
        let thought = text.strip_prefix("<think>").unwrap().split_once("</think>").unwrap().0;
        let end = "<think>".len() + thought.len();
        let tokens = generation.tokens.iter().filter(|token| (8..=end).contains(&token.text_end)).count();
        assert!(tokens <= most, "{tokens} tokens in {text}");
        assert_eq!(generation.finish, TurnFinish::Stop);
    }
}

#[test]
fn guesses_are_cut_where_the_form_does_not_admit_them() {
    let (constrainer, tokenizer, _) = constrainer(FOLDERS[1]);
    let grammar = &grammars()[1];
    let mut constraint = constrainer.constraint(grammar, &request(grammar, 64, 64)).unwrap();
    for id in tokenizer.encode("<think> a</think><segment>(").unwrap() {
        constraint.accept(id).unwrap();
    }
    let guesses = tokenizer.encode("12, 900)</segment>").unwrap();
    let admitted = constraint.admits(&guesses).unwrap();
    assert_eq!(tokenizer.decode(&guesses[..admitted], false).unwrap(), "12, ");
    // Asking changes nothing.
    assert_eq!(constraint.admits(&guesses).unwrap(), admitted);
}

#[test]
fn a_tokenizer_without_known_bytes_is_refused() {
    let files = ModelFiles::folder(Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDERS[0]));
    let folder = tempfile::tempdir().unwrap();
    let mut json: serde_json::Value =
        serde_json::from_slice(&files.require("tokenizer.json").unwrap()).unwrap();
    json["decoder"] = serde_json::json!({"type": "Fuse"});
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::open(&ModelFiles::folder(folder.path())).unwrap();
    let error = Constrainer::new(Arc::new(tokenizer), 423).unwrap_err().to_string();
    assert!(error.contains("cannot be constrained") && error.contains("constrain=off"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn random_logits_always_write_a_whole_turn(
        seed in any::<u64>(),
        grammar in prop::sample::select(grammars()),
        folder in prop::sample::select(FOLDERS.to_vec()),
        max_new in 100_u32..200,
        think in 0_u32..300,
    ) {
        let generation = written(folder, &request(&grammar, max_new, think), seed);
        prop_assert_eq!(generation.finish, TurnFinish::Stop);
        prop_assert!(matches(&grammar, &generation.text), "{}", generation.text);
        prop_assert!(generation.tokens.len() <= max_new as usize);
    }
}
