//! The tags in a model's text, so that a page can set them off.

use serde::Serialize;

/// A piece of a model's text.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Piece {
    /// The tag's name (`think`, `segment`, `frame`, `answer`) for what stands inside it or for the tag itself.
    pub(crate) within: Option<&'static str>,
    /// True for the tag itself.
    pub(crate) tag: bool,
    /// The text.
    pub(crate) text: String,
}

const TAGS: [(&str, &str, &str); 4] = [
    ("think", "<think>", "</think>"),
    ("segment", "<segment>", "</segment>"),
    ("frame", "<frame>", "</frame>"),
    ("answer", "<answer>", "</answer>"),
];

/// Cuts `text` at its tags. All pieces together are the text.
pub(crate) fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((at, (name, open, close))) =
        TAGS.iter().filter_map(|tag| rest.find(tag.1).map(|at| (at, *tag))).min_by_key(|(at, _)| *at)
    {
        push(&mut pieces, None, false, &rest[..at]);
        push(&mut pieces, Some(name), true, open);
        rest = &rest[at + open.len()..];
        let end = rest.find(close).unwrap_or(rest.len());
        push(&mut pieces, Some(name), false, &rest[..end]);
        rest = &rest[end..];
        if let Some(after) = rest.strip_prefix(close) {
            push(&mut pieces, Some(name), true, close);
            rest = after;
        }
    }
    push(&mut pieces, None, false, rest);
    pieces
}

fn push(pieces: &mut Vec<Piece>, within: Option<&'static str>, tag: bool, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece { within, tag, text: text.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_the_text() {
        for text in [
            "",
            "plain",
            "<think> red at 436</think><segment>(385, 487)</segment>",
            "<think>no end <answer>7</answer>",
            "</think><frame>[1, 2]</frame> tail",
        ] {
            assert_eq!(pieces(text).iter().map(|piece| piece.text.as_str()).collect::<String>(), text);
        }
    }

    #[test]
    fn insides_know_their_tag() {
        let pieces = pieces("<answer>7</answer>");
        assert_eq!(
            pieces.iter().map(|p| (p.within, p.tag)).collect::<Vec<_>>(),
            [(Some("answer"), true), (Some("answer"), false), (Some("answer"), true)]
        );
    }
}
