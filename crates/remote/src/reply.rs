//! A reply as a generation: its text whole again (thoughts and stop strings that a server takes out of it are put back),
//! cut at the first stop string, with token records where the server's tokens spell it.

use std::ops::Range;

use spectemp_engine::{Generation, Score, THOUGHT_CLOSES, THOUGHT_OPENS};
use spectemp_types::{StageTimes, TokenCounts, TurnFinish};

use crate::{
    score::scores,
    tokens::{placed, records},
    wire::{ChatReply, Choice, Usage},
};

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) stops: Vec<String>,
    pub(crate) score: Option<Score>,
    /// Visual tokens of the prompt, by the sizes of its images.
    pub(crate) visual_tokens: u64,
}

/// Why a reply is none.
#[derive(Debug, PartialEq)]
pub(crate) enum Bad {
    /// The server broke off, or does not keep to the protocol.
    Broken(String),
    /// It withholds the text, and will again.
    Withheld(String),
}

/// Reads a reply.
pub(crate) fn generation(reply: ChatReply, asked: &Asked, generate_ms: f64) -> Result<Generation, Bad> {
    let ChatReply { choices, usage } = reply;
    let choice = choices.into_iter().next().ok_or_else(|| Bad::Broken("it holds no choices".to_owned()))?;
    if let Some(refusal) = choice.message.refusal.as_deref().filter(|refusal| !refusal.is_empty()) {
        return Err(Bad::Withheld(format!("the model refuses: {refusal}")));
    }
    let finish = finish(choice.finish_reason.as_deref())?;
    let Whole { text, content, was_stopped } = whole(&choice, finish, &asked.stops);
    let list = choice.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
    let tokens = placed(&list, &text, &content).unwrap_or_default();
    Ok(Generation {
        scores: asked.score.as_ref().and_then(|score| scores(&tokens, &text, score)),
        tokens: records(&tokens),
        text,
        finish: if was_stopped { TurnFinish::Stop } else { finish },
        counts: counts(usage.as_ref(), asked.visual_tokens, list.len()),
        times: StageTimes { generate_ms, ..StageTimes::default() },
    })
}

fn finish(reason: Option<&str>) -> Result<TurnFinish, Bad> {
    match reason {
        Some("stop" | "eos" | "eos_token" | "stop_sequence" | "end_turn") => Ok(TurnFinish::EndOfTurn),
        Some("length" | "max_tokens") => Ok(TurnFinish::Length),
        Some("content_filter") => Err(Bad::Withheld("its content filter withholds the text".to_owned())),
        Some(other) => Err(Bad::Broken(format!("it ended for the reason {other:?}"))),
        None => Err(Bad::Broken("it does not say why it ended".to_owned())),
    }
}

/// The text that the model wrote.
struct Whole {
    text: String,
    /// The part of it that the server gave as the text.
    content: Range<usize>,
    /// True where a stop string ended it.
    was_stopped: bool,
}

fn whole(choice: &Choice, finish: TurnFinish, stops: &[String]) -> Whole {
    let given = choice.message.content.as_deref().unwrap_or_default();
    let thought = choice.message.reasoning_content.as_deref().unwrap_or_default().trim();
    let taken_out = !thought.is_empty() && !given.contains(THOUGHT_OPENS);
    let mut text =
        if taken_out { format!("{THOUGHT_OPENS}{thought}{THOUGHT_CLOSES}") } else { String::new() };
    let start = text.len();
    let said = said_from(given);
    let end =
        |stop: &String| said.and_then(|said| Some(said + given[said..].find(stop.as_str())? + stop.len()));
    let cut = stops.iter().filter_map(end).min();
    text.push_str(&given[..cut.unwrap_or(given.len())]);
    let content = start..text.len();
    let left_away = match (cut, said, finish) {
        (None, Some(said), TurnFinish::EndOfTurn) => closing(&given[said..], stops),
        _ => None,
    };
    text.push_str(left_away.map_or("", String::as_str));
    Whole { text, content, was_stopped: cut.is_some() || left_away.is_some() }
}

/// Where the thought ends, in which no stop string counts; none where it is still open.
fn said_from(text: &str) -> Option<usize> {
    match text.find(THOUGHT_CLOSES) {
        Some(at) => Some(at + THOUGHT_CLOSES.len()),
        None if text.trim_start().starts_with(THOUGHT_OPENS) => None,
        None => Some(0),
    }
}

/// True for a turn that was ended inside its thought: by a stop string that the model only thought about, or by itself.
pub(crate) fn ends_in_thought(generation: &Generation) -> bool {
    generation.finish == TurnFinish::EndOfTurn && said_from(&generation.text).is_none()
}

/// The stop string that must have ended a text which a server gives without it: the closing of the tag that was opened
/// last. (Where the model ended its turn with the tag open, this closes it too.)
fn closing<'s>(text: &str, stops: &'s [String]) -> Option<&'s String> {
    let opened = |stop: &String| text.rfind(&stop.replacen("</", "<", 1)).filter(|_| stop.starts_with("</"));
    stops
        .iter()
        .filter_map(|stop| Some((opened(stop)?, stop)))
        .max_by_key(|(at, _)| *at)
        .map(|(_, stop)| stop)
}

/// Servers count a prompt's tokens as one number: the visual ones are told apart by the sizes of the images.
fn counts(usage: Option<&Usage>, visual: u64, listed: usize) -> TokenCounts {
    let Some(usage) = usage else {
        return TokenCounts { visual, generated: listed as u64, ..TokenCounts::default() };
    };
    let visual = visual.min(usage.prompt_tokens);
    let details = usage.prompt_tokens_details.as_ref();
    TokenCounts {
        text: usage.prompt_tokens - visual,
        visual,
        reused: details.and_then(|details| details.cached_tokens).unwrap_or_default(),
        generated: usage.completion_tokens,
        ..TokenCounts::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked() -> Asked {
        let stops = ["</answer>", "</segment>"].map(str::to_owned).to_vec();
        Asked { stops, score: None, visual_tokens: 8 }
    }

    fn read(reply: Value) -> Result<Generation, Bad> {
        generation(serde_json::from_value(reply).unwrap(), &asked(), 5.0)
    }

    fn said(message: Value, finish: &str) -> Result<Generation, Bad> {
        read(json!({ "choices": [{ "index": 0, "message": message, "finish_reason": finish }] }))
    }

    fn text(content: &str, finish: &str) -> (String, TurnFinish) {
        let generation = said(json!({ "role": "assistant", "content": content }), finish).unwrap();
        (generation.text, generation.finish)
    }

    #[test]
    fn stop_strings_are_put_back_or_cut_after() {
        let answer = "<think>a</think><answer>7</answer>".to_owned();
        let stop = TurnFinish::Stop;
        assert_eq!(text("<think>a</think><answer>7", "stop"), (answer.clone(), stop));
        assert_eq!(text("<think>a</think><answer>7</answer>", "stop"), (answer.clone(), stop));
        assert_eq!(text("<think>a</think><answer>7</answer> more", "length"), (answer, stop));
        // The tag that was opened last.
        let both = "<answer>7</b><segment>(1, 2)";
        assert_eq!(text(both, "stop").0, format!("{both}</segment>"));
        // Cut by the limit, or never opened: nothing is made up.
        assert_eq!(text("<answer>7", "length"), ("<answer>7".to_owned(), TurnFinish::Length));
        assert_eq!(text("seven", "stop"), ("seven".to_owned(), TurnFinish::EndOfTurn));
    }

    #[test]
    fn inside_a_thought_no_stop_string_counts() {
        let open = "<think>so <answer>7";
        assert_eq!(text(open, "stop"), (open.to_owned(), TurnFinish::EndOfTurn));
        assert!(ends_in_thought(&said(json!({ "content": open }), "stop").unwrap()));
        assert!(!ends_in_thought(&said(json!({ "content": open }), "length").unwrap()));
        let whole = "<think>so <answer>7</answer>?</think><answer>8</answer>";
        assert_eq!(text(&format!("{whole} and"), "length"), (whole.to_owned(), TurnFinish::Stop));
        assert!(!ends_in_thought(&said(json!({ "content": whole }), "stop").unwrap()));
    }

    #[test]
    fn a_thought_that_was_taken_out_is_put_back() {
        let message = json!({ "content": "<answer>7</answer>", "reasoning_content": "\nred?\n" });
        assert_eq!(said(message, "stop").unwrap().text, "<think>red?</think><answer>7</answer>");
        let message = json!({ "content": null, "reasoning": "red" });
        assert_eq!(said(message, "length").unwrap().text, "<think>red</think>");
        let message = json!({ "content": "<think>x</think>y", "reasoning": "red" });
        assert_eq!(said(message, "stop").unwrap().text, "<think>x</think>y");
    }

    #[test]
    fn tokens_are_counted_as_the_server_says() {
        let usage = json!({
            "prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34,
            "prompt_tokens_details": { "cached_tokens": 20 },
        });
        let choices = json!([{ "message": { "content": "x" }, "finish_reason": "stop" }]);
        let generation = read(json!({ "choices": choices, "usage": usage })).unwrap();
        let counts = TokenCounts { text: 22, visual: 8, reused: 20, encoded: 0, generated: 4 };
        assert_eq!(generation.counts, counts);
        assert_eq!(generation.times.generate_ms, 5.0);
        let silent = said(json!({ "content": "x" }), "stop").unwrap();
        assert_eq!(silent.counts, TokenCounts { visual: 8, ..TokenCounts::default() });
        assert!(silent.tokens.is_empty() && silent.scores.is_none());
    }

    #[test]
    fn replies_that_are_none_are_told_apart() {
        assert_eq!(read(json!({ "choices": [] })), Err(Bad::Broken("it holds no choices".to_owned())));
        let refusal = json!({ "content": null, "refusal": "I cannot" });
        assert!(matches!(said(refusal, "stop"), Err(Bad::Withheld(said)) if said.contains("I cannot")));
        assert!(matches!(said(json!({ "content": "" }), "content_filter"), Err(Bad::Withheld(_))));
        assert!(
            matches!(said(json!({ "content": "" }), "abort"), Err(Bad::Broken(said)) if said.contains("abort"))
        );
        assert!(matches!(said(json!({ "content": "" }), "tool_calls"), Err(Bad::Broken(_))));
    }
}
