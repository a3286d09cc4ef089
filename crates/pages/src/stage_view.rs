//! The stage time line on a page: one drawing with a lane for the frames and for each model.

use serde::Serialize;
use spectemp_types::{Round, Stage};

use crate::{
    stages::{Beginning, Chart, Lane, Span, name},
    text::{duration, seconds},
    timeline::Tick,
};

/// Pixels above the first lane, for the rounds' numbers; of each lane; and where in it its bar begins.
const TOP: usize = 20;
const LANE: usize = 38;
const BAR: usize = 18;

/// What the template draws.
#[derive(Serialize)]
pub(crate) struct StageView {
    total: String,
    /// The drawing in words.
    description: String,
    height: usize,
    lanes: Vec<LaneView>,
    rounds: Vec<RoundMark>,
    ticks: Vec<Tick>,
    legend: Vec<Entry>,
    rest: String,
    interruptions: Option<String>,
}

#[derive(Serialize)]
struct LaneView {
    name: &'static str,
    text_y: usize,
    bar_y: usize,
    bars: Vec<Bar>,
}

/// Places are in percent of the width.
#[derive(Serialize)]
struct Bar {
    stage: &'static str,
    inset: usize,
    x: String,
    width: String,
    title: String,
}

#[derive(Serialize)]
struct RoundMark {
    x: String,
    number: u32,
    resumed: bool,
}

#[derive(Serialize)]
struct Entry {
    stage: &'static str,
    inset: usize,
    text: String,
}

impl StageView {
    /// The drawing of `rounds`; none where they tell no stages.
    pub(crate) fn of(rounds: &[Round]) -> Option<Self> {
        let chart = Chart::of(rounds)?;
        let entry =
            |(stage, ms): (Stage, f64)| Entry { stage: name(stage), inset: inset(stage), text: duration(ms) };
        let lanes: Vec<LaneView> = chart
            .lanes()
            .into_iter()
            .enumerate()
            .map(|(place, lane)| lane_view(&chart, place, lane))
            .collect();
        let mark = |round: &Beginning| RoundMark {
            x: percent(round.at_ms, &chart),
            number: round.round,
            resumed: round.pause.is_some(),
        };
        Some(Self {
            total: duration(chart.total_ms),
            description: description(&chart),
            height: TOP + LANE * lanes.len(),
            lanes,
            rounds: chart.rounds.iter().map(mark).collect(),
            ticks: ticks(&chart),
            legend: chart.sums().into_iter().map(entry).collect(),
            rest: duration(chart.rest_ms()),
            interruptions: chart.interruptions(),
        })
    }
}

/// Pixels by which a bar is lower than its lane, above and below: waiting is a thin line.
fn inset(stage: Stage) -> usize {
    if stage == Stage::Wait { 5 } else { 0 }
}

fn percent(ms: f64, chart: &Chart) -> String {
    seconds(100.0 * (ms / chart.total_ms).clamp(0.0, 1.0))
}

fn lane_view(chart: &Chart, place: usize, lane: Lane) -> LaneView {
    let bar = |span: &Span| Bar {
        stage: name(span.stage),
        inset: inset(span.stage),
        x: percent(span.from_ms, chart),
        // Short ones still show.
        width: seconds((100.0 * span.ms() / chart.total_ms).max(0.15)),
        title: format!(
            "round {}, {}: {} {}, from {} to {}",
            span.round,
            lane.name(),
            name(span.stage),
            duration(span.ms()),
            duration(span.from_ms),
            duration(span.to_ms)
        ),
    };
    let top = TOP + LANE * place;
    let bars = chart.spans.iter().filter(|span| span.lane == lane && span.ms() > 0.0).map(bar).collect();
    LaneView { name: lane.name(), text_y: top + BAR - 5, bar_y: top + BAR, bars }
}

/// What each lane took of which stage.
fn description(chart: &Chart) -> String {
    let lanes = chart.lanes().into_iter().map(|lane| {
        let spans: Vec<Span> = chart.spans.iter().copied().filter(|span| span.lane == lane).collect();
        let own = Chart { spans, rounds: Vec::new(), total_ms: chart.total_ms };
        let sums = own.sums().into_iter();
        let sums: Vec<String> = sums.map(|(stage, ms)| format!("{} {}", name(stage), duration(ms))).collect();
        format!("{}: {}", lane.name(), sums.join(", "))
    });
    format!("{}. {} in all.", lanes.collect::<Vec<_>>().join(". "), duration(chart.total_ms))
}

/// Round times below the lanes: zero, the end, and at most six between.
fn ticks(chart: &Chart) -> Vec<Tick> {
    let tick = |ms: f64, place| Tick { x: percent(ms, chart), text: duration(ms), place };
    let rough_ms = chart.total_ms / 6.0;
    let power = 10.0_f64.powf(rough_ms.log10().floor());
    let step_ms =
        [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough_ms);
    let mut ticks = vec![Tick { text: "0".to_owned(), ..tick(0.0, "first") }];
    if let Some(step_ms) = step_ms {
        // A time nearer to the end than half a step would run into the end's text.
        let inner = (1..=6_u32).map(|place| f64::from(place) * step_ms);
        ticks.extend(inner.take_while(|ms| *ms < chart.total_ms - step_ms * 0.5).map(|ms| tick(ms, "")));
    }
    ticks.push(tick(chart.total_ms, "last"));
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_few_and_round() {
        let texts = |total_ms| -> Vec<String> {
            let chart = Chart { spans: Vec::new(), rounds: Vec::new(), total_ms };
            ticks(&chart).into_iter().map(|tick| tick.text).collect()
        };
        assert_eq!(texts(1234.0), ["0", "500 ms", "1.23 s"]);
        assert_eq!(texts(100.0), ["0", "20 ms", "40 ms", "60 ms", "80 ms", "100 ms"]);
        for total_ms in [0.003, 0.7, 9.0, 61.0, 5e6, 1e12] {
            assert!((2..=8).contains(&texts(total_ms).len()), "{total_ms}");
        }
    }
}
