//! Where the tokens of a reply stand in its text.

use std::ops::Range;

use spectemp_engine::TokenRecord;

use crate::wire::TokenLogprob;

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) bytes: Vec<u8>,
    /// Its first byte in the text.
    pub(crate) start: usize,
    /// One past its last byte in the text.
    pub(crate) end: usize,
    pub(crate) logprob: f64,
    /// The most probable tokens in its place, itself often among them.
    pub(crate) others: Vec<(Vec<u8>, f64)>,
}

/// The tokens that make up `text`. None where the server's spelling of them does not: a probability that belongs to an
/// unknown place of the text is worth nothing. `content` is the part of the text that the server gave as such: what it
/// took out of it (a thought) or left away (a stop string) may be spelled differently.
pub(crate) fn placed(list: &[TokenLogprob], text: &str, content: &Range<usize>) -> Option<Vec<Token>> {
    let spelled: Vec<Vec<u8>> = list.iter().map(|token| token.token.bytes()).collect::<Option<_>>()?;
    let whole = spelled.concat();
    let (needle, shift) = match last_place(&whole, text.as_bytes()) {
        Some(_) => (text, 0),
        None => (&text[content.clone()], content.start),
    };
    let first = last_place(&whole, needle.as_bytes())?;
    let last = first + needle.len();
    let mut tokens = Vec::with_capacity(list.len());
    let mut at = 0;
    for (token, bytes) in list.iter().zip(spelled) {
        let (start, end) = (at, at + bytes.len());
        at = end;
        if end <= first || start >= last {
            continue;
        }
        let alternatives = token.top_logprobs.iter().flatten();
        tokens.push(Token {
            start: start.max(first) - first + shift,
            end: end.min(last) - first + shift,
            logprob: token.token.logprob.filter(|logprob| !logprob.is_nan())?,
            others: alternatives.filter_map(|other| Some((other.bytes()?, other.logprob?))).collect(),
            bytes,
        });
    }
    Some(tokens)
}

/// Where `needle` stands last.
fn last_place(hay: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return None;
    }
    hay.windows(needle.len()).rposition(|window| window == needle)
}

/// What the loop keeps of them. Servers do not tell ids.
pub(crate) fn records(tokens: &[Token]) -> Vec<TokenRecord> {
    tokens.iter().map(|token| TokenRecord { id: None, logprob: token.logprob, text_end: token.end }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(tokens: &[&str]) -> Vec<TokenLogprob> {
        let tokens: Vec<_> = tokens.iter().map(|token| json!({ "token": token, "logprob": -0.5 })).collect();
        serde_json::from_value(tokens.into()).unwrap()
    }

    fn places(tokens: &[&str], text: &str, content: Range<usize>) -> Option<Vec<(usize, usize)>> {
        let tokens = placed(&list(tokens), text, &content)?;
        Some(tokens.iter().map(|token| (token.start, token.end)).collect())
    }

    #[test]
    fn tokens_cover_the_text() {
        assert_eq!(places(&["a", "bc", "d"], "abcd", 0..4), Some(vec![(0, 1), (1, 3), (3, 4)]));
        // White space in front and an end token behind are no part of it.
        assert_eq!(places(&[" a", "b", "<|im_end|>"], "ab", 0..2), Some(vec![(0, 1), (1, 2)]));
        // A stop string that was put back.
        assert_eq!(places(&["<x>7", "</", "x>"], "<x>7</x>", 0..4), Some(vec![(0, 4), (4, 6), (6, 8)]));
        assert_eq!(places(&["<x>7", "<|im_end|>"], "<x>7</x>", 0..4), Some(vec![(0, 4)]));
        // llama.cpp holds back what may begin a stop string and gives it with the next token.
        assert_eq!(places(&["7", "", "</x", ">"], "7</x>", 0..5), Some(vec![(0, 1), (1, 1), (1, 4), (4, 5)]));
        // A thought that the server took out, with other white space.
        let thought = ["<think>\n", "7?", "\n</think>\n\n", "7"];
        assert_eq!(places(&thought, "<think>7?</think>7", 17..18), Some(vec![(17, 18)]));
    }

    #[test]
    fn tokens_that_do_not_make_the_text_are_not_used() {
        assert_eq!(places(&["token_id:7", "token_id:9"], "ab", 0..2), None);
        assert_eq!(places(&[], "ab", 0..2), None);
        assert_eq!(places(&["a"], "", 0..0), None);
        let mut unknown = list(&["a", "b"]);
        unknown[1].token.logprob = None;
        assert_eq!(placed(&unknown, "ab", &(0..2)), None);
    }

    #[test]
    fn half_characters_are_placed_by_their_bytes() {
        let tokens = json!([
            { "token": "\u{fffd}", "bytes": [195], "logprob": -1.0 },
            { "token": "\u{fffd}", "bytes": [169], "logprob": -1.0 },
        ]);
        let list: Vec<TokenLogprob> = serde_json::from_value(tokens).unwrap();
        let ends: Vec<usize> =
            records(&placed(&list, "é", &(0..2)).unwrap()).iter().map(|t| t.text_end).collect();
        assert_eq!(ends, [1, 2]);
    }
}
