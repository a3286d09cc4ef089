//! Labels: how a prompt names its frames, and back from what a model wrote to seconds of the video.

/// What kind of label a template shows before each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// Seconds with one decimal, more where frames lie closer.
    Seconds,
    /// Whole seconds, rounded from the frame's time and strictly rising within a prompt.
    WholeSeconds,
    /// The frame's number, from 1, going on through the conversation.
    Index,
}

impl LabelKind {
    /// The kind that a template names with `{% set labels = "…" %}`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "seconds" => Some(Self::Seconds),
            "whole_seconds" => Some(Self::WholeSeconds),
            "index" => Some(Self::Index),
            _ => None,
        }
    }

    /// One label per frame of one turn; `times_s` strictly rising, `earlier` frames shown in turns before.
    pub(crate) fn labels(self, times_s: &[f64], earlier: usize) -> Vec<String> {
        match self {
            Self::Seconds => decimals(times_s),
            Self::WholeSeconds => whole_seconds(times_s).iter().map(u64::to_string).collect(),
            Self::Index => (0..times_s.len()).map(|k| (earlier + k + 1).to_string()).collect(),
        }
    }

    /// How a prompt writes a bare time, such as the length of the video: later than the label `after`, where whole
    /// seconds must rise.
    pub(crate) fn time(self, time_s: f64, after: Option<&str>) -> String {
        match self {
            Self::Seconds | Self::Index => format!("{time_s:.1}"),
            Self::WholeSeconds => {
                let least = after.and_then(|label| label.parse::<u64>().ok()).map_or(0, |last| last + 1);
                (time_s.max(0.0).round_ties_even() as u64).max(least).to_string()
            }
        }
    }

    /// Seconds of the video for a number that a model wrote where a time belongs. With [`LabelKind::Index`] it is the
    /// number of a frame of the conversation (`shown_s`, in order): 0 is the start and one past the last is the end.
    pub(crate) fn seconds(self, written: f64, shown_s: &[f64], duration_s: f64) -> f64 {
        if self != Self::Index {
            return written;
        }
        match written.round() {
            index if index < 1.0 => 0.0,
            index => shown_s.get(index as usize - 1).copied().unwrap_or(duration_s),
        }
    }
}

/// One decimal, or as many (up to six) as tell the neighbours apart.
fn decimals(times_s: &[f64]) -> Vec<String> {
    let written = |places: usize| times_s.iter().map(|time| format!("{time:.places$}")).collect::<Vec<_>>();
    (1..6)
        .map(written)
        .find(|labels| labels.windows(2).all(|pair| pair[0] != pair[1]))
        .unwrap_or_else(|| written(6))
}

fn whole_seconds(times_s: &[f64]) -> Vec<u64> {
    let mut next = 0;
    let mut label = |time: &f64| {
        let label = (time.max(0.0).round_ties_even() as u64).max(next);
        next = label + 1;
        label
    };
    times_s.iter().map(&mut label).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_of_each_kind() {
        let times = [0.0, 0.4, 2.5, 3.5];
        assert_eq!(LabelKind::Seconds.labels(&times, 3), ["0.0", "0.4", "2.5", "3.5"]);
        assert_eq!(LabelKind::WholeSeconds.labels(&times, 3), ["0", "1", "2", "4"]);
        assert_eq!(LabelKind::Index.labels(&times, 3), ["4", "5", "6", "7"]);
        assert_eq!(LabelKind::Seconds.labels(&[1.0, 1.033], 0), ["1.00", "1.03"]);
    }

    #[test]
    fn the_length_comes_after_the_last_label() {
        assert_eq!(LabelKind::WholeSeconds.time(64.2, Some("61")), "64");
        assert_eq!(LabelKind::WholeSeconds.time(1.2, Some("3")), "4");
        assert_eq!(LabelKind::Seconds.time(64.25, Some("61.0")), "64.2");
    }

    #[test]
    fn an_index_stands_for_its_frame() {
        let seconds = |written| LabelKind::Index.seconds(written, &[1.5, 4.5], 6.0);
        assert_eq!([0.0, 1.0, 2.0, 3.0, -7.0, 1e300].map(seconds), [0.0, 1.5, 4.5, 6.0, 0.0, 6.0]);
        assert_eq!(LabelKind::Seconds.seconds(2.0, &[1.5], 6.0), 2.0);
    }

    proptest! {
        #[test]
        fn whole_seconds_rise(steps in prop::collection::vec(0.001..3.0_f64, 1..50)) {
            let times: Vec<f64> = steps.iter().scan(0.0, |sum, step| { *sum += step; Some(*sum) }).collect();
            let labels = whole_seconds(&times);
            prop_assert!(labels.windows(2).all(|pair| pair[0] < pair[1]));
        }

        #[test]
        fn decimals_tell_frames_apart(steps in prop::collection::vec(0.002..3.0_f64, 1..50)) {
            let times: Vec<f64> = steps.iter().scan(0.0, |sum, step| { *sum += step; Some(*sum) }).collect();
            let labels = decimals(&times);
            prop_assert!(labels.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }
}
