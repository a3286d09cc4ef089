//! The stage time line in characters: a row for the frames and for each model, a letter for each stage.

use spectemp_types::{Round, Stage};

use crate::{
    stages::{Beginning, Chart, Lane, name},
    text::duration,
};

/// What stands left of a row.
const LABEL: usize = 12;

fn letter(stage: Stage) -> char {
    match stage {
        Stage::Frames => 'f',
        Stage::Wait => '.',
        Stage::Vision => 'v',
        Stage::Prefill => 'p',
        Stage::Generate => 'g',
    }
}

/// The chart in lines of at most `width` characters (at least 40), and what its letters mean as one text to be broken
/// between words; none where the rounds tell no stages.
pub(crate) fn chart_text(rounds: &[Round], width: usize) -> Option<(Vec<String>, String)> {
    let chart = Chart::of(rounds)?;
    let cells = width.saturating_sub(LABEL + 2).clamp(20, 100);
    let row = |label: &str, cells: String| format!("{label:<LABEL$}|{cells}|");
    let mut lines = vec![row("stages", beginnings(&chart, cells))];
    let of_lane = |lane: Lane| row(&format!("  {}", lane.name()), lane_text(&chart, lane, cells));
    lines.extend(chart.lanes().into_iter().map(of_lane));
    Some((lines, legend(&chart)))
}

/// The cell that a moment lies in.
fn cell(ms: f64, chart: &Chart, cells: usize) -> usize {
    ((ms / chart.total_ms * cells as f64) as usize).min(cells - 1)
}

/// The numbers of the rounds where they begin; one that has no room is left out.
fn beginnings(chart: &Chart, cells: usize) -> String {
    let mut text = String::new();
    for Beginning { round, at_ms, .. } in &chart.rounds {
        let (at, number) = (cell(*at_ms, chart, cells), round.to_string());
        let free = text.is_empty() || at > text.len();
        if free && at + number.len() <= cells {
            text = format!("{text:<at$}{number}");
        }
    }
    format!("{text:<cells$}")
}

/// In each cell the stage that took most of its time.
fn lane_text(chart: &Chart, lane: Lane, cells: usize) -> String {
    let cell_ms = chart.total_ms / cells as f64;
    let mut most: Vec<(f64, char)> = vec![(0.0, ' '); cells];
    for span in chart.spans.iter().filter(|span| span.lane == lane) {
        for (at, most) in most.iter_mut().enumerate() {
            let (from_ms, to_ms) = (at as f64 * cell_ms, (at + 1) as f64 * cell_ms);
            let share = span.to_ms.min(to_ms) - span.from_ms.max(from_ms);
            if share > most.0 {
                *most = (share, letter(span.stage));
            }
        }
    }
    most.into_iter().map(|(_, letter)| letter).collect()
}

fn legend(chart: &Chart) -> String {
    let sums = chart.sums().into_iter();
    let told = sums.map(|(stage, ms)| format!("{}={} {}", letter(stage), name(stage), duration(ms)));
    let rest = format!("else {}", duration(chart.rest_ms()));
    let parts: Vec<String> = told.chain([rest]).chain(chart.interruptions()).collect();
    format!("{} in all: {}", duration(chart.total_ms), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use spectemp_types::Trace;

    use super::*;

    #[test]
    fn rows_fill_the_width_and_show_every_long_stage() {
        let trace: Trace = serde_json::from_str(include_str!("../tests/data/trace.json")).unwrap();
        for width in [20, 40, 79, 300] {
            let (lines, legend) = chart_text(&trace.rounds, width).unwrap();
            let wide = LABEL + 2 + width.saturating_sub(LABEL + 2).clamp(20, 100);
            assert!(lines.iter().all(|line| line.chars().count() == wide), "{lines:#?}");
            let chart = Chart::of(&trace.rounds).unwrap();
            for (stage, ms) in chart.sums() {
                let shown = lines[1..].concat().contains(letter(stage));
                assert!(shown || ms < chart.total_ms / 10.0, "{stage:?} {lines:#?}");
                assert!(legend.contains(&format!("{} {}", name(stage), duration(ms))), "{legend}");
            }
        }
    }

    #[test]
    fn rounds_that_begin_in_one_cell_have_one_number() {
        let beginning = |round, at_ms| Beginning { round, at_ms, pause: None };
        let rounds = vec![beginning(0, 0.0), beginning(1, 1.0), beginning(2, 50.0), beginning(10, 99.9)];
        let chart = Chart { spans: Vec::new(), rounds, total_ms: 100.0 };
        assert_eq!(beginnings(&chart, 20), "0         2         ");
    }
}
