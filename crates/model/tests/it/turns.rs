//! The demonstration pair's turns: every text equals the reference implementation's greedy output for the same frames.

use candle_core::{Device, Tensor};
use serde_json::Value;
use spectemp_engine::{AnswerForm, Decimal, Ending, Grammar, Message, Part, RgbImage, Role, Times, Vlm};
use spectemp_types::TurnFinish;

use crate::support::{data, demo, json, load, request};

fn image(frames: &Tensor, number: u64) -> RgbImage {
    let (_, height, width, _) = frames.dims4().expect("frames");
    let data: Vec<u8> =
        frames.get(number as usize).and_then(|frame| frame.flatten_all()?.to_vec1()).expect("a frame");
    RgbImage { width: width as u32, height: height as u32, data: data.into() }
}

fn part(part: &Value, frames: &Tensor) -> Part {
    if let Some(text) = part["text"].as_str() {
        return Part::Text(text.to_owned());
    }
    if let Some(number) = part["image"].as_u64() {
        return Part::Image(image(frames, number));
    }
    let token_ids = serde_json::from_value(part["ids"].clone()).expect("ids");
    Part::Generated { text: part["generated"].as_str().expect("a text").to_owned(), token_ids }
}

fn messages(turn: &Value, frames: &Tensor) -> Vec<Message> {
    let parts = |message: &Value| {
        message["parts"].as_array().expect("parts").iter().map(|p| part(p, frames)).collect()
    };
    let role = |message: &Value| match message["role"].as_str() {
        Some("assistant") => Role::Assistant,
        _ => Role::User,
    };
    let list = turn["messages"].as_array().expect("messages");
    list.iter().map(|message| Message { role: role(message), parts: parts(message) }).collect()
}

#[tokio::test]
async fn every_golden_turn_is_written_word_for_word() {
    let turns = json(&data("turns/turns.json"));
    let frames =
        candle_core::safetensors::load(data("turns/turns.safetensors"), &Device::Cpu).expect("readable");
    let turns = turns["turns"].as_array().expect("a list");
    assert!(turns.len() >= 12);
    for role in ["target", "draft"] {
        let model = load(&demo(role));
        let mut seen = 0;
        for turn in turns.iter().filter(|turn| turn["role"] == role) {
            let generation =
                model.generate(request(messages(turn, &frames[role]), 64)).await.expect("it answers");
            let wanted: Vec<u32> = serde_json::from_value(turn["ids"].clone()).expect("ids");
            let got = generation.token_ids();
            assert_eq!(generation.text, turn["text"].as_str().expect("a text"), "{}", turn["kind"]);
            assert_eq!(got, wanted);
            assert_eq!(generation.finish, TurnFinish::EndOfTurn);
            let prompt = turn["prompt_ids"].as_array().expect("ids").len() as u64;
            assert_eq!(generation.counts.text + generation.counts.visual, prompt, "{}", turn["kind"]);
            assert_eq!(generation.counts.generated, wanted.len() as u64 + 1);
            seen += 1;
        }
        assert!(seen >= 3, "{role} has {seen} turns");
    }
}

/// What the loop would hold this turn to, for a video of 2400 s.
fn grammar(turn: &Value, messages: &[Message]) -> Grammar {
    let seconds = |units| Decimal { units, decimals: 0 };
    let segment = Ending::Segment(Times { first: seconds(2399), second: seconds(2400) });
    let answer = Ending::Answer(AnswerForm::Free);
    let label = |part: &Part| match part {
        Part::Text(text) => text.trim().parse::<u64>().ok().map(|label| label.to_string()),
        _ => None,
    };
    let endings = match turn["kind"].as_str() {
        Some("draft_pick") => {
            let labels = messages.iter().flat_map(|message| &message.parts).filter_map(label).collect();
            vec![Ending::Frames { labels, most: 2 }]
        }
        Some("answer_now") => vec![answer],
        _ => vec![answer, segment],
    };
    Grammar { endings }
}

/// The forms admit what the demonstration pair was trained to write, in its own spelling: with them it writes the same
/// tokens with the same log-probabilities, and stops at the closing tag.
#[tokio::test]
async fn constraint_changes_nothing_in_the_golden_turns() {
    let turns = json(&data("turns/turns.json"));
    let frames =
        candle_core::safetensors::load(data("turns/turns.safetensors"), &Device::Cpu).expect("readable");
    let turns = turns["turns"].as_array().expect("a list");
    for role in ["target", "draft"] {
        let model = load(&demo(role));
        for turn in turns.iter().filter(|turn| turn["role"] == role) {
            let messages = messages(turn, &frames[role]);
            let mut held = request(messages.clone(), 64);
            let grammar = grammar(turn, &messages);
            held.stops = grammar.stops();
            held.grammar = Some(grammar);
            let free = model.generate(request(messages, 64)).await.expect("it answers");
            let held = model.generate(held).await.expect("it answers");
            assert_eq!(held.text, turn["text"].as_str().expect("a text"), "{}", turn["kind"]);
            assert_eq!(held.tokens, free.tokens);
            assert_eq!(held.finish, TurnFinish::Stop);
            assert_eq!(held.counts.generated, held.tokens.len() as u64);
        }
    }
}
