//! The form of one turn, in words that any backend can turn into its own: `<think>…</think>` and then one of a few
//! tagged contents. The language is regular; [`Grammar::pattern`] gives it as a [`Pattern`], which renders itself as a
//! regular expression or as GBNF.
//!
//! Everything that fits a grammar made by the loop is read by the loop without a reminder: what the parser calls
//! malformed cannot be written. The thought holds no `<`, so that no tag can hide in it.

mod bounds;
mod pattern;

pub use bounds::Decimal;
pub use pattern::Pattern;

/// What opens a thought.
pub const THOUGHT_OPENS: &str = "<think>";
/// What closes a thought.
pub const THOUGHT_CLOSES: &str = "</think>";

/// Characters of a thought: no tag, no control character but tab and line feed.
const THOUGHT: &str = r"^<\x00-\x08\x0b-\x1f\x7f";
/// Characters that an answer may begin with: those of a thought that are no white space, which readers trim away.
const FIRST: &str =
    "^<\\x00-\\x20\\x7f\u{85}\u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";

/// The form of one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar {
    /// What may follow the thought: one of these.
    pub endings: Vec<Ending>,
}

/// What follows the thought and ends the turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `<answer>…</answer>`
    Answer(AnswerForm),
    /// `<segment>(start, end)</segment>`
    Segment(Times),
    /// `<frame>[label, label]</frame>`
    Frames {
        /// The labels that may be named, each as it is shown.
        labels: Vec<String>,
        /// Most labels to name; at least one is.
        most: u32,
    },
    /// `<answer>…</answer><glue>[(start, end), (start, end)]</glue>`, a turn of VideoChat-R1.5.
    AnswerAndGlue {
        /// What the answer may be.
        answer: AnswerForm,
        /// What each interval may be.
        times: Times,
        /// Most intervals; at least one is given.
        most: u32,
    },
}

/// What an answer may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerForm {
    /// Any text that does not begin with white space.
    Free,
    /// One of these, word for word.
    Options(Vec<String>),
}

/// Two times as the prompt shows them: each from 0 on, with at most as many decimals as its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The largest that may stand first: the last moment that still lies before the video's end.
    pub first: Decimal,
    /// The largest that may stand second.
    pub second: Decimal,
}

impl Grammar {
    /// The whole turn. `thought_chars` bounds the thought for backends that cannot count its tokens.
    pub fn pattern(&self, thought_chars: Option<u32>) -> Pattern {
        Pattern::Sequence(vec![
            Pattern::text(THOUGHT_OPENS),
            Self::thought(thought_chars),
            Pattern::text(THOUGHT_CLOSES),
            Pattern::Choice(self.endings.iter().map(|ending| Pattern::Sequence(ending.pieces())).collect()),
        ])
    }

    /// What stands between `<think>` and `</think>`.
    pub fn thought(most_chars: Option<u32>) -> Pattern {
        Pattern::OneOf(THOUGHT).repeated(0, most_chars)
    }

    /// What the turn ends with: one of these closing tags.
    pub fn stops(&self) -> Vec<String> {
        let mut stops: Vec<String> = self.endings.iter().map(|ending| ending.closes().to_owned()).collect();
        stops.dedup();
        stops
    }
}

impl Ending {
    /// It as pieces in order, tags and contents by themselves.
    pub fn pieces(&self) -> Vec<Pattern> {
        match self {
            Self::Answer(form) => form.tagged(),
            Self::Segment(times) => times.between("<segment>(", ")</segment>"),
            Self::Frames { labels, most } => vec![
                Pattern::text("<frame>["),
                list(Pattern::Choice(labels.iter().map(|label| Pattern::text(label)).collect()), *most),
                Pattern::text("]</frame>"),
            ],
            Self::AnswerAndGlue { answer, times, most } => {
                let mut pieces = answer.tagged();
                pieces.push(Pattern::text("<glue>["));
                pieces.push(list(Pattern::Sequence(times.between("(", ")")), *most));
                pieces.push(Pattern::text("]</glue>"));
                pieces
            }
        }
    }

    /// The tag that closes it.
    pub fn closes(&self) -> &'static str {
        match self {
            Self::Answer(_) => "</answer>",
            Self::Segment(_) => "</segment>",
            Self::Frames { .. } => "</frame>",
            Self::AnswerAndGlue { .. } => "</glue>",
        }
    }
}

impl AnswerForm {
    fn tagged(&self) -> Vec<Pattern> {
        let mut pieces = vec![Pattern::text("<answer>")];
        match self {
            Self::Free => {
                let rest = Pattern::OneOf(THOUGHT).repeated(0, None);
                pieces.push(Pattern::Sequence(vec![Pattern::OneOf(FIRST), rest]));
            }
            Self::Options(options) => {
                pieces.push(Pattern::Choice(options.iter().map(|option| Pattern::text(option)).collect()));
            }
        }
        pieces.push(Pattern::text("</answer>"));
        pieces
    }
}

impl Times {
    /// Both times, with these texts around them.
    fn between(self, opens: &str, closes: &str) -> Vec<Pattern> {
        vec![
            Pattern::text(opens),
            self.first.up_to(),
            Pattern::text(", "),
            self.second.up_to(),
            Pattern::text(closes),
        ]
    }
}

/// One to `most` items with commas between them.
fn list(item: Pattern, most: u32) -> Pattern {
    let more = Pattern::Sequence(vec![Pattern::text(", "), item.clone()]);
    Pattern::Sequence(vec![item, more.repeated(0, Some(most.max(1) - 1))])
}

#[cfg(test)]
mod tests;
