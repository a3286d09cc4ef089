//! Time lines: what lies where, in percent of a strip's width.

use serde::Serialize;
use spectemp_types::{FrameRef, Round, TimeSpan};

use crate::text::{clock, seconds};

/// A strip of a page: a span of the video with what was looked at in it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Strip {
    /// What it shows, in words.
    pub(crate) title: String,
    /// Where the segment begins, and how wide it is.
    pub(crate) segment: Option<[String; 2]>,
    /// Where dense frames lie.
    pub(crate) dense: Vec<String>,
    /// The frames that the target saw.
    pub(crate) frames: Vec<Mark>,
}

/// A frame on a strip.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Mark {
    pub(crate) x: String,
    pub(crate) title: String,
}

/// A time below a strip.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Tick {
    pub(crate) x: String,
    pub(crate) text: String,
    /// `first`, `last` or empty: where the text must not be centred.
    pub(crate) place: &'static str,
}

/// Percent with two decimals, within the strip.
fn percent(value: f64, within: TimeSpan) -> String {
    let share = if within.seconds() > 0.0 { (value - within.start_s) / within.seconds() } else { 0.5 };
    seconds(100.0 * share.clamp(0.0, 1.0))
}

impl Strip {
    /// A round on the whole video's time line: its segment and the target's frames.
    pub(crate) fn of_round(round: &Round, video: TimeSpan) -> Self {
        let segment = (round.span != video).then_some(round.span);
        Self {
            title: format!(
                "round {} from {} to {}",
                round.no,
                clock(round.span.start_s),
                clock(round.span.end_s)
            ),
            segment: segment.map(|span| bar(span, video)),
            dense: Vec::new(),
            frames: marks(&round.frames, video),
        }
    }

    /// A round's segment alone, with the dense frames.
    pub(crate) fn of_segment(round: &Round) -> Option<Self> {
        let dense = round.dense.as_ref()?;
        Some(Self {
            title: format!("{} dense frames, {} chosen", dense.frames.len(), round.frames.len()),
            segment: None,
            dense: dense.frames.iter().map(|frame| percent(frame.pts_s, round.span)).collect(),
            frames: marks(&round.frames, round.span),
        })
    }
}

fn bar(span: TimeSpan, within: TimeSpan) -> [String; 2] {
    // A segment of a second in a video of hours still shows.
    let width = (100.0 * span.seconds() / within.seconds().max(f64::MIN_POSITIVE)).clamp(0.4, 100.0);
    [percent(span.start_s, within), seconds(width)]
}

fn marks(frames: &[FrameRef], within: TimeSpan) -> Vec<Mark> {
    let mark = |frame: &FrameRef| Mark { x: percent(frame.pts_s, within), title: clock(frame.pts_s) };
    frames.iter().map(mark).collect()
}

const STEPS: [f64; 16] =
    [0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0];

/// At most seven times below a strip: both ends and round ones between.
pub(crate) fn ticks(span: TimeSpan) -> Vec<Tick> {
    let step = STEPS.into_iter().find(|step| span.seconds() / step <= 6.0).unwrap_or(span.seconds() / 4.0);
    let tick = |time: f64, place| Tick { x: percent(time, span), text: clock(time), place };
    let mut ticks = vec![tick(span.start_s, "first")];
    let mut time = (span.start_s / step).floor() * step + step;
    // A time nearer to an end than half a step would run into the end's text.
    while step > 0.0 && time < span.end_s - step * 0.5 {
        if time > span.start_s + step * 0.5 {
            ticks.push(tick(time, ""));
        }
        time += step;
    }
    ticks.push(tick(span.end_s, "last"));
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_few_and_round() {
        let texts = |start_s, end_s| -> Vec<String> {
            ticks(TimeSpan { start_s, end_s }).into_iter().map(|tick| tick.text).collect()
        };
        assert_eq!(texts(0.0, 64.0), ["0:00", "0:15", "0:30", "0:45", "1:04"]);
        assert_eq!(texts(385.0, 487.0), ["6:25", "7:00", "7:30", "8:07"]);
        for length in [0.0, 0.3, 1.0, 40.0, 2000.0, 1e6] {
            assert!((2..=8).contains(&texts(0.0, length).len()), "{length}");
        }
    }
}
