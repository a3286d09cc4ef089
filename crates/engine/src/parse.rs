//! The one parser of model outputs. It finds the tags `<think> <segment> <frame> <answer> <glue>` (any case, spaces
//! inside the brackets allowed) and never fails: what is malformed is read as far as it can be, and said so.
//!
//! | output | reading |
//! |---|---|
//! | tags inside a closed `<think>…</think>` | part of the thought, they do not count |
//! | `</think>` without its opening | all before it is the thought |
//! | a tag that is not closed | reaches to the next tag or the end ([`Fallback::TagUnclosed`]); one that `max_new_tokens` cut off cannot be read |
//! | a tag twice | the last one that holds something counts ([`Fallback::TagRepeated`]) |
//! | a tag with nothing in it | as if it were not there |
//! | no `<think>` | the text before the first tag is the thought |
//!
//! What the loop makes of a reading is told in `docs/engine-policy.md`.

use std::ops::Range;

use spectemp_types::{Fallback, TurnFinish};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Think,
    Segment,
    Frame,
    Answer,
    Glue,
}

const NAMES: [(Name, &str); 5] = [
    (Name::Think, "think"),
    (Name::Segment, "segment"),
    (Name::Frame, "frame"),
    (Name::Answer, "answer"),
    (Name::Glue, "glue"),
];

/// One `<name>` or `</name>` in the text.
#[derive(Clone, Debug)]
struct Tag {
    name: Name,
    opens: bool,
    at: Range<usize>,
}

/// One tag with what it holds.
#[derive(Clone, Debug)]
struct Element {
    name: Name,
    content: Range<usize>,
    outer: Range<usize>,
    closed: bool,
}

/// What a model's output holds. Ranges are bytes of the text, trimmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The thought.
    pub(crate) think: Option<Range<usize>>,
    /// The content of `<segment>`.
    pub(crate) segment: Option<Range<usize>>,
    /// The content of `<frame>`.
    pub(crate) frame: Option<Range<usize>>,
    /// The content of `<answer>`.
    pub(crate) answer: Option<Range<usize>>,
    /// The content of `<glue>`, VideoChat-R1.5's word for segments.
    pub(crate) glue: Option<Range<usize>>,
    /// The longest text outside of all tags.
    pub(crate) plain: Option<Range<usize>>,
    /// What an unclosed tag at the end holds: if generation was cut off, it may go on.
    pub(crate) open_end: Option<Range<usize>>,
    /// Repeated and unclosed tags.
    pub(crate) flaws: Vec<Fallback>,
}

impl Reply {
    /// True where `range` may lack its end, because the generation was cut off in it.
    pub(crate) fn is_cut(&self, range: &Range<usize>, finish: TurnFinish) -> bool {
        finish == TurnFinish::Length && self.open_end.as_ref() == Some(range)
    }
}

/// Reads an output.
pub(crate) fn parse(text: &str) -> Reply {
    let tags = tags(text);
    let elements = elements(text, &tags);
    let last = |name| elements.iter().rev().find(|e| e.name == name && trimmed(text, &e.content).is_some());
    let content = |name| last(name).and_then(|element| trimmed(text, &element.content));
    let repeated = NAMES.iter().any(|(name, _)| elements.iter().filter(|e| e.name == *name).count() > 1);
    let unclosed = NAMES.iter().any(|(name, _)| last(*name).is_some_and(|element| !element.closed));
    let flaws = [(repeated, Fallback::TagRepeated), (unclosed, Fallback::TagUnclosed)];
    let before_first = trimmed(text, &(0..tags.first().map_or(0, |tag| tag.at.start)));
    Reply {
        think: content(Name::Think).or(before_first),
        segment: content(Name::Segment),
        frame: content(Name::Frame),
        answer: content(Name::Answer),
        glue: content(Name::Glue),
        plain: plain(text, &elements),
        open_end: elements.last().filter(|last| !last.closed).and_then(|last| trimmed(text, &last.content)),
        flaws: flaws.into_iter().filter_map(|(there, flaw)| there.then_some(flaw)).collect(),
    }
}

/// All tags of the text, in order.
fn tags(text: &str) -> Vec<Tag> {
    text.match_indices('<').filter_map(|(at, _)| tag(text, at)).collect()
}

/// The tag that starts at the `<` at byte `start`.
fn tag(text: &str, start: usize) -> Option<Tag> {
    let rest = &text[start + 1..];
    let inside = &rest[..rest.find('>')?];
    let (opens, word) = match inside.trim_start().strip_prefix('/') {
        Some(word) => (false, word),
        None => (true, inside),
    };
    let (name, _) = NAMES.iter().find(|(_, spelling)| word.trim().eq_ignore_ascii_case(spelling))?;
    Some(Tag { name: *name, opens, at: start..start + inside.len() + 2 })
}

/// Tags with their contents, in order, none inside another.
fn elements(text: &str, tags: &[Tag]) -> Vec<Element> {
    let mut elements = Vec::new();
    let mut next = 0;
    if let Some(close) = tags.iter().position(|tag| tag.name == Name::Think)
        && !tags[close].opens
    {
        let outer = 0..tags[close].at.end;
        elements.push(Element { name: Name::Think, content: 0..tags[close].at.start, outer, closed: true });
        next = close + 1;
    }
    while let Some(open) = tags.get(next) {
        next += 1;
        if !open.opens {
            continue;
        }
        let close = closing(&tags[next..], open.name).map(|offset| next + offset);
        let stop = close.or((next < tags.len()).then_some(next));
        let content = open.at.end..stop.map_or(text.len(), |stop| tags[stop].at.start);
        let outer_end = close.map_or(content.end, |close| tags[close].at.end);
        let outer = open.at.start..outer_end;
        elements.push(Element { name: open.name, content, outer, closed: close.is_some() });
        next = close.map_or(next, |close| close + 1);
    }
    elements
}

/// Which of the tags after an opening one closes it: the very next, or for a thought the first `</think>` before
/// another thought opens.
fn closing(after: &[Tag], name: Name) -> Option<usize> {
    let found = match name {
        Name::Think => after.iter().position(|tag| tag.name == Name::Think),
        _ => (!after.is_empty()).then_some(0),
    };
    found.filter(|&index| after[index].name == name && !after[index].opens)
}

/// The range without white space at its ends; `None` where nothing is left.
fn trimmed(text: &str, range: &Range<usize>) -> Option<Range<usize>> {
    let content = &text[range.clone()];
    let start = range.start + content.len() - content.trim_start().len();
    let length = content.trim().len();
    (length > 0).then_some(start..start + length)
}

/// The longest piece outside of all elements.
fn plain(text: &str, elements: &[Element]) -> Option<Range<usize>> {
    let starts = std::iter::once(0).chain(elements.iter().map(|element| element.outer.end));
    let ends = elements.iter().map(|element| element.outer.start).chain([text.len()]);
    starts.zip(ends).filter_map(|(start, end)| trimmed(text, &(start..end.max(start)))).max_by_key(Range::len)
}

#[cfg(test)]
mod tests;
