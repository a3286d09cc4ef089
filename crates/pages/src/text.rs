//! Numbers and texts as a reader wants them.

use spectemp_types::Fallback;

/// Seconds with at most two decimals: `12`, `12.5`, `12.04`.
pub(crate) fn seconds(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A time on a video's clock: `6:25`, `1:02:05`, with hundredths where there are any.
pub(crate) fn clock(value: f64) -> String {
    let hundredths = (value.max(0.0) * 100.0).round() as u64;
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    let fraction =
        if rest == 0 { String::new() } else { format!(".{rest:02}").trim_end_matches('0').to_owned() };
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}{fraction}")
    } else {
        format!("{minutes}:{seconds:02}{fraction}")
    }
}

/// Milliseconds: `0.4 ms`, `85 ms`, `2.31 s`.
pub(crate) fn duration(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms >= 1000.0 => format!("{:.2} s", ms / 1000.0),
        ms if ms >= 10.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

/// Bytes in decimal units: `512 B`, `3.4 kB`, `12.0 MB`.
pub(crate) fn bytes(count: u64) -> String {
    let value = count as f64;
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

/// A number with thin groups of three digits: `12 345`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A fallback as a sentence.
pub(crate) fn fallback(of: &Fallback) -> &'static str {
    match of {
        Fallback::SegmentClamped => "the segment reached outside the video and was cut to it",
        Fallback::SegmentReversed => "the segment's times were reversed and were swapped",
        Fallback::SegmentDropped => "the segment could not be used and was dropped",
        Fallback::SegmentWidened => "the segment was one moment and was widened",
        Fallback::ExtraTimes => "the segment held more than two times: the first two count",
        Fallback::AnswerOverSegment => "both an answer and a segment were given: the answer counts",
        Fallback::TagRepeated => "a tag was given twice: the last one that holds something counts",
        Fallback::TagUnclosed => "a tag was not closed: it reaches to the next tag or the end",
        Fallback::UnknownLabels => "the draft named labels that it was not shown; they were left out",
        Fallback::DuplicateLabels => "the draft named a label twice; it counts once",
        Fallback::TooManyFrames => "the draft named more frames than wanted; the first ones count",
        Fallback::TooFewFrames => "the draft named fewer frames than wanted; the rest was filled uniformly",
        Fallback::UniformPicks => "the draft's choice could not be used: uniform picks instead",
        Fallback::Reminded => "the output could not be read and the model was reminded of the format",
        Fallback::ForcedFinal => "the final answer was demanded because the output could not be read",
        Fallback::UntaggedAnswer => "the final answer had no readable tag: its whole text was taken",
        Fallback::MostProbableOption => "the answer was no option: the most probable option was taken",
    }
}

/// `text` for a terminal: control characters (escape sequences among them) and characters that reorder text are
/// shown as `\u{…}`, line feeds stay.
pub(crate) fn harmless(text: &str) -> String {
    let hostile = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .flat_map(|c| if hostile(c) { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(seconds(12.0), "12");
        assert_eq!(seconds(100.0), "100");
        assert_eq!(seconds(12.504), "12.5");
        assert_eq!(clock(385.0), "6:25");
        assert_eq!(clock(3725.25), "1:02:05.25");
        assert_eq!(clock(59.999), "1:00");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(12_040_000), "12.0 MB");
        assert_eq!(duration(2310.0), "2.31 s");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\n\u{202e}c"), "a\\u{1b}[2Jb\n\\u{202e}c");
    }
}
