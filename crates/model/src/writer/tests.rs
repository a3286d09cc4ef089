use std::path::Path;

use spectemp_engine::Sampling;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::files::ModelFiles;

const VOCAB: usize = 423;
const EOS: u32 = 411;

fn tokenizer() -> Arc<Tokenizer> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/untied/model");
    Arc::new(Tokenizer::open(&ModelFiles::folder(folder)).unwrap())
}

fn request(max_new_tokens: u32, think_tokens: u32, stops: &[&str]) -> Request {
    Request {
        messages: Vec::new(),
        sampling: Sampling { temperature: 0.0, top_p: 1.0, seed: 0 },
        max_new_tokens,
        grammar: None,
        think_tokens,
        stops: stops.iter().map(|stop| (*stop).to_owned()).collect(),
        score: None,
        cancel: CancellationToken::new(),
    }
}

/// Logits that want one token.
fn wanting(id: u32) -> Vec<f32> {
    let mut row = vec![0.0; VOCAB];
    row[id as usize] = 9.0;
    row
}

/// What comes of a model that wants to write `text` and then to end.
fn written(text: &str, request: &Request) -> Written {
    let tokenizer = tokenizer();
    let mut wanted = tokenizer.encode(text).unwrap();
    wanted.push(EOS);
    let mut writer = Writer::new(request, &tokenizer, &Arc::from([EOS]), None).unwrap();
    let mut at = 0;
    while !writer.is_finished() {
        // What is forced takes the place of nothing that it wanted.
        let is_forced = !writer.settled.is_empty();
        writer.take(&wanting(wanted[at]), request).unwrap();
        at += usize::from(!is_forced);
    }
    writer.finish().unwrap()
}

#[test]
fn a_turn_ends_by_its_end_token_its_stop_or_its_length() {
    let text = "<think>a <answer>b</answer></think><answer>7</answer> and more";
    let generation = |max_new, stops: &[&str]| written(text, &request(max_new, 200, stops));
    let free = generation(200, &[]);
    assert_eq!((free.text.as_str(), free.finish), (text, TurnFinish::EndOfTurn));
    assert!(free.tokens.iter().all(|token| token.logprob > -0.1 && token.logprob < 0.0));
    let stopped = generation(200, &["</answer>", "</segment>"]);
    assert_eq!(stopped.finish, TurnFinish::Stop);
    assert_eq!(stopped.text, "<think>a <answer>b</answer></think><answer>7</answer>");
    assert_eq!(generation(3, &[]).finish, TurnFinish::Length);
    assert_eq!(generation(3, &[]).tokens.len(), 3);
    assert_eq!(generation(0, &[]).tokens.len(), 0);
}

#[test]
fn a_thought_that_goes_on_is_closed_without_a_grammar_too() {
    let long = format!("<think>{}", "a ".repeat(50));
    let generation = written(&long, &request(40, 6, &[]));
    let (thought, after) = generation.text.split_once("</think>").unwrap();
    let opening = tokenizer().encode("<think>").unwrap().len();
    assert!(thought.starts_with("<think>a a"));
    let tokens = generation.tokens.iter().filter(|token| token.text_end <= thought.len()).count();
    assert!((opening + 6..=opening + 7).contains(&tokens), "{tokens} tokens in {thought}");
    assert!(after.starts_with('a') || after.starts_with(" a"), "{after}");
    // What the model did not want has the probability that the model gave it.
    let forced = generation.tokens.iter().find(|token| token.text_end > thought.len()).unwrap();
    assert!(forced.logprob < -5.0);
    assert!(!written(&long, &request(40, 40, &[])).text.contains("</think>"));
}
