//! Rounds, answers and durations in words, for the terminal.

use std::time::Duration;

use spectemp_types::{Chooser, Evidence, Round, Verdict};

/// One round in one line.
pub(crate) fn round_line(round: &Round) -> String {
    let mut line = format!("round {}  {:>9}", round.no, span(round.span.start_s, round.span.end_s));
    line.push_str(&match (&round.dense, round.chosen_by) {
        (_, Chooser::None) => "  no new frames".to_owned(),
        (Some(dense), _) => {
            format!("  {} of {} frames at {:.2} fps", round.frames.len(), dense.frames.len(), dense.fps)
        }
        (None, _) => format!("  {} frames", round.frames.len()),
    });
    if round.chosen_by == Chooser::UniformFallback {
        line.push_str(" (picked uniformly: the draft's choice could not be used)");
    }
    line.push_str(&match &round.verdict {
        Verdict::Answer { text, .. } => format!("  → answers {}", plain(text)),
        Verdict::Segment { span: next } => format!("  → looks at {}", span(next.start_s, next.end_s)),
        Verdict::Nothing => "  → nothing".to_owned(),
    });
    line
}

/// One piece of evidence in one line.
pub(crate) fn evidence_line(evidence: &Evidence) -> String {
    let frames: Vec<String> = evidence.frames_s.iter().map(|at| format!("{at:.1}")).collect();
    format!("{}, frames at {} s", span(evidence.start_s, evidence.end_s), frames.join(", "))
}

/// Seconds from and to.
fn span(start_s: f64, end_s: f64) -> String {
    format!("{start_s:.1}–{end_s:.1} s")
}

/// The text as the terminal may see it: a model's output may hold anything.
pub(crate) fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// A duration as people say it.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) if duration.as_secs_f64() < 10.0 => format!("{:.1} s", duration.as_secs_f64()),
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// `1 job`, `2 jobs`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let said: Vec<String> =
            [1.25, 59.0, 61.0, 7260.0].map(Duration::from_secs_f64).map(duration).to_vec();
        assert_eq!(said, ["1.2 s", "59 s", "1 min 01 s", "2 h 01 min"]);
    }

    #[test]
    fn a_hostile_answer_cannot_move_the_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
