//! Patterns of text without a dialect: literals, sets of characters, sequences, choices, repetitions.

/// A regular language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This text.
    Text(String),
    /// One character of a set, written as between `[` and `]` of a regular expression. The sets in use mean the same
    /// in GBNF.
    OneOf(&'static str),
    /// One character of this range.
    Range(char, char),
    /// All of these, in order.
    Sequence(Vec<Pattern>),
    /// One of these.
    Choice(Vec<Pattern>),
    /// So many of it: at least, and at most.
    Repeat(Box<Pattern>, u32, Option<u32>),
}

impl Pattern {
    /// This text.
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// At least `least` and at most `most` of it.
    pub fn repeated(self, least: u32, most: Option<u32>) -> Self {
        if most == Some(0) { Self::text("") } else { Self::Repeat(Box::new(self), least, most) }
    }

    /// As a regular expression without anchors, in the syntax that Rust, Python and RE2 share.
    pub fn regex(&self) -> String {
        match self {
            Self::Text(text) => text.chars().map(escaped).collect(),
            Self::OneOf(set) => format!("[{set}]"),
            Self::Range(from, to) if from == to => escaped(*from),
            Self::Range(from, to) => format!("[{from}-{to}]"),
            Self::Sequence(parts) => parts.iter().map(Self::regex).collect(),
            Self::Choice(parts) => format!("({})", joined(parts, "|", Self::regex)),
            Self::Repeat(part, least, most) => format!("({}){}", part.regex(), counted(*least, *most)),
        }
    }

    /// As the right-hand side of a GBNF rule.
    pub fn gbnf(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", text.chars().map(quoted).collect::<String>()),
            Self::OneOf(set) => format!("[{set}]"),
            Self::Range(from, to) => format!("[{from}-{to}]"),
            Self::Sequence(parts) => joined(parts, " ", Self::gbnf),
            Self::Choice(parts) => format!("({})", joined(parts, " | ", Self::gbnf)),
            Self::Repeat(part, least, most) => format!("({}){}", part.gbnf(), counted(*least, *most)),
        }
    }

    /// Bytes of the longest text that it admits, none where there is no longest; a character of a set has up to four.
    pub fn longest(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.len()),
            Self::OneOf(_) => Some(4),
            Self::Range(_, to) => Some(to.len_utf8()),
            Self::Sequence(parts) => parts.iter().map(Self::longest).sum(),
            Self::Choice(parts) => {
                parts.iter().map(Self::longest).try_fold(0, |most, part| Some(most.max(part?)))
            }
            Self::Repeat(part, _, most) => Some(part.longest()? * (*most)? as usize),
        }
    }
}

fn joined(parts: &[Pattern], between: &str, render: impl Fn(&Pattern) -> String) -> String {
    parts.iter().map(render).collect::<Vec<_>>().join(between)
}

fn counted(least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}

fn escaped(character: char) -> String {
    match character {
        '\n' => r"\n".to_owned(),
        '\t' => r"\t".to_owned(),
        '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' | '/' => {
            format!(r"\{character}")
        }
        control if control.is_ascii_control() => format!(r"\x{:02x}", u32::from(control)),
        plain => plain.to_string(),
    }
}

fn quoted(character: char) -> String {
    match character {
        '"' | '\\' => format!(r"\{character}"),
        '\n' => r"\n".to_owned(),
        control if control.is_ascii_control() => format!(r"\x{:02x}", u32::from(control)),
        plain => plain.to_string(),
    }
}
