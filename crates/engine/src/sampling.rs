//! Which times of a video are looked at. All are seconds from the first displayed frame.

use spectemp_types::TimeSpan;

/// Slack for sums of floating-point times: a span's end may have gone through JSON.
const SLACK_S: f64 = 1e-6;

/// A time (or another figure) as it is recorded: six decimals, so that it is the same after it went through JSON.
pub(crate) fn recorded(time_s: f64) -> f64 {
    (time_s * 1e6).round() / 1e6
}

/// The middles of `count` equal parts of the span: start + (k + 0.5) · length / count.
pub(crate) fn uniform(span: TimeSpan, count: u32) -> Vec<f64> {
    let step = span.seconds() / f64::from(count);
    (0..count).map(|k| span.start_s + (f64::from(k) + 0.5) * step).collect()
}

/// Dense times of a span.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dense {
    /// δ in force, frames per second.
    pub(crate) fps: f64,
    /// True where δ was lowered to meet the cap.
    pub(crate) lowered: bool,
    /// start + i / δ, before the end.
    pub(crate) times_s: Vec<f64>,
}

/// start + i / δ < end; δ is lowered to `cap` / length where there would be more than `cap` times.
pub(crate) fn dense(span: TimeSpan, fps: f64, cap: u32) -> Dense {
    let wanted = dense_count(span.seconds(), fps);
    let lowered = wanted > u64::from(cap);
    let (fps, count) =
        if lowered { (f64::from(cap) / span.seconds(), u64::from(cap)) } else { (fps, wanted) };
    let times_s = (0..count).map(|i| span.start_s + i as f64 / fps).collect();
    Dense { fps, lowered, times_s }
}

/// How many times start + i / δ lie before the end, the cap aside; at least one.
pub(crate) fn dense_count(seconds: f64, fps: f64) -> u64 {
    ((seconds - SLACK_S) * fps).ceil().max(1.0) as u64
}

/// VideoChat-R1.5's sampling: a second inside an interval weighs 1.5, one outside 1. Each interval gets its share of
/// the frames by linspace, at least one; the rest is uniform outside. A sorted set.
pub(crate) fn weighted(intervals: &[TimeSpan], duration_s: f64, count: u32) -> Vec<f64> {
    let whole = TimeSpan { start_s: 0.0, end_s: duration_s };
    let inside = merged(intervals);
    let inside_s: f64 = inside.iter().map(TimeSpan::seconds).sum();
    if inside_s <= 0.0 {
        return uniform(whole, count);
    }
    let outside = complement(&inside, duration_s);
    let outside_s: f64 = outside.iter().map(TimeSpan::seconds).sum();
    let share = 1.5 * inside_s / (1.5 * inside_s + outside_s);
    let near = (f64::from(count) * share).round();
    let mut times: Vec<f64> = inside
        .iter()
        .flat_map(|span| linspace(*span, (near * span.seconds() / inside_s).round().max(1.0) as u32))
        .collect();
    let rest = count.saturating_sub(times.len() as u32);
    times.extend(uniform_over(&outside, outside_s, rest));
    times.sort_by(f64::total_cmp);
    times.dedup_by(|a, b| *a - *b < SLACK_S);
    times
}

/// Both ends included; one alone is the middle.
fn linspace(span: TimeSpan, count: u32) -> Vec<f64> {
    match count {
        0 | 1 => vec![span.start_s + span.seconds() / 2.0],
        _ => {
            (0..count).map(|k| span.start_s + span.seconds() * f64::from(k) / f64::from(count - 1)).collect()
        }
    }
}

/// The middles of `count` equal parts of what the spans are together.
fn uniform_over(spans: &[TimeSpan], total_s: f64, count: u32) -> Vec<f64> {
    let mut times = Vec::new();
    let mut before_s = 0.0;
    for span in spans {
        let places = (0..count).map(|k| (f64::from(k) + 0.5) * total_s / f64::from(count));
        let within = places.filter(|at| (before_s..before_s + span.seconds()).contains(at));
        times.extend(within.map(|at| span.start_s + at - before_s));
        before_s += span.seconds();
    }
    times
}

/// Sorted spans without overlaps.
fn merged(spans: &[TimeSpan]) -> Vec<TimeSpan> {
    let mut sorted = spans.to_vec();
    sorted.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
    let mut merged: Vec<TimeSpan> = Vec::new();
    for span in sorted {
        match merged.last_mut() {
            Some(last) if span.start_s <= last.end_s => last.end_s = last.end_s.max(span.end_s),
            _ => merged.push(span),
        }
    }
    merged
}

/// What sorted spans without overlaps leave of the video.
fn complement(spans: &[TimeSpan], duration_s: f64) -> Vec<TimeSpan> {
    let starts = std::iter::once(0.0).chain(spans.iter().map(|span| span.end_s));
    let ends = spans.iter().map(|span| span.start_s).chain([duration_s]);
    starts
        .zip(ends)
        .filter_map(|(start_s, end_s)| (start_s < end_s).then_some(TimeSpan { start_s, end_s }))
        .collect()
}

/// `count` of `total` places that are not in `taken`, uniform over those left; rising.
pub(crate) fn fill(total: usize, taken: &[usize], count: usize) -> Vec<usize> {
    let free: Vec<usize> = (0..total).filter(|place| !taken.contains(place)).collect();
    let count = count.min(free.len());
    (0..count).map(|j| free[(2 * j + 1) * free.len() / (2 * count)]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(start_s: f64, end_s: f64) -> TimeSpan {
        TimeSpan::new(start_s, end_s).unwrap()
    }

    #[test]
    fn uniform_times_are_the_middles() {
        assert_eq!(uniform(span(0.0, 10.0), 4), [1.25, 3.75, 6.25, 8.75]);
        assert_eq!(uniform(span(6.0, 12.0), 3), [7.0, 9.0, 11.0]);
    }

    #[test]
    fn dense_times_stop_before_the_end_and_meet_the_cap() {
        assert_eq!(dense(span(385.0, 388.0), 1.0, 64).times_s, [385.0, 386.0, 387.0]);
        assert_eq!(dense(span(0.5, 2.6), 1.0, 64).times_s, [0.5, 1.5, 2.5]);
        assert_eq!(dense(span(0.0, 0.1), 1.0, 64).times_s, [0.0]);
        let lowered = dense(span(0.0, 100.0), 1.0, 4);
        assert!(lowered.lowered && lowered.fps == 0.04);
        assert_eq!(lowered.times_s, [0.0, 25.0, 50.0, 75.0]);
        assert!(!dense(span(0.0, 64.0), 1.0, 64).lowered);
    }

    #[test]
    fn weighted_times_favour_the_intervals() {
        // 20 s of 100 inside: 10 · 30 / (30 + 80) = 2.7, three frames inside.
        let times = weighted(&[span(30.0, 50.0)], 100.0, 10);
        assert_eq!(times.iter().filter(|time| (30.0..=50.0).contains(*time)).count(), 3);
        assert_eq!(times.len(), 10);
        assert_eq!(weighted(&[], 8.0, 2), [2.0, 6.0]);
        assert_eq!(weighted(&[span(0.0, 8.0)], 8.0, 3), [0.0, 4.0, 8.0]);
    }

    #[test]
    fn filling_is_uniform_over_what_is_free() {
        assert_eq!(fill(6, &[], 2), [1, 4]);
        assert_eq!(fill(6, &[1], 1), [3]);
        assert_eq!(fill(2, &[0], 5), [1]);
        assert_eq!(fill(0, &[], 2), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn dense_times_lie_in_the_span(start in 0.0..4000.0_f64, length in 0.01..4000.0_f64, fps in 0.05..30.0_f64, cap in 1..500_u32) {
            let span = span(start, start + length);
            let dense = dense(span, fps, cap);
            prop_assert!(!dense.times_s.is_empty() && dense.times_s.len() <= cap as usize);
            prop_assert!(dense.times_s.iter().all(|time| (span.start_s..span.end_s).contains(time)));
            prop_assert!(dense.times_s.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(dense.fps <= fps && dense.lowered == (dense.fps < fps));
        }

        #[test]
        fn weighted_times_rise_within_the_video(
            ends in prop::collection::vec((0.0..100.0_f64, 0.0..100.0_f64), 0..5),
            count in 1..64_u32,
        ) {
            let intervals: Vec<_> = ends.iter().map(|(a, b)| span(a.min(*b), a.max(*b))).collect();
            let times = weighted(&intervals, 100.0, count);
            prop_assert!(!times.is_empty());
            prop_assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(times.iter().all(|time| (0.0..=100.0).contains(time)));
        }
    }
}
