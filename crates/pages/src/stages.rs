//! The stage time line of a job: when frames were read, and when each model waited, looked, read and wrote.
//!
//! A round's times count from when the work on its job began, or went on after an interruption. The chart puts what was
//! done in several sittings one after the other, and says where and how long nothing was done between.

use spectemp_types::{Round, Stage, TurnRole};

use crate::text::duration;

const SLACK_MS: f64 = 1.0;

/// A row of the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Frames,
    Draft,
    Target,
}

impl Lane {
    pub(crate) const ALL: [Self; 3] = [Self::Frames, Self::Draft, Self::Target];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Draft => "draft",
            Self::Target => "target",
        }
    }
}

/// All stages, in the order in which they come.
pub(crate) const STAGES: [Stage; 5] =
    [Stage::Frames, Stage::Wait, Stage::Vision, Stage::Prefill, Stage::Generate];

pub(crate) fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Frames => "frames",
        Stage::Wait => "wait",
        Stage::Vision => "vision",
        Stage::Prefill => "prefill",
        Stage::Generate => "generate",
    }
}

/// One stage of one round on the chart's clock, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) lane: Lane,
    pub(crate) stage: Stage,
    pub(crate) round: u32,
    pub(crate) from_ms: f64,
    pub(crate) to_ms: f64,
}

impl Span {
    pub(crate) fn ms(&self) -> f64 {
        self.to_ms - self.from_ms
    }
}

/// Where a round begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Beginning {
    pub(crate) round: u32,
    pub(crate) at_ms: f64,
    /// The work was interrupted before it.
    pub(crate) pause: Option<Pause>,
}

/// How long nobody worked on the job, in milliseconds; none where the rounds do not tell, or clocks contradict each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pause(pub(crate) Option<f64>);

/// The chart of a job.
#[derive(Debug, PartialEq)]
pub(crate) struct Chart {
    pub(crate) spans: Vec<Span>,
    pub(crate) rounds: Vec<Beginning>,
    /// Where it ends.
    pub(crate) total_ms: f64,
}

impl Chart {
    /// The chart of `rounds`; none where no round tells its stages, as those of earlier builds do not.
    pub(crate) fn of(rounds: &[Round]) -> Option<Self> {
        let mut chart = Self { spans: Vec::new(), rounds: Vec::new(), total_ms: 0.0 };
        // The present sitting's zero on the chart, and by the clock.
        let (mut zero_ms, mut zero_unix_ms) = (0.0, None);
        for round in rounds {
            let Some(first_ms) = round.timeline.iter().map(|span| span.began_ms).reduce(f64::min) else {
                continue;
            };
            let pause = match (zero_unix_ms, round.zero_unix_ms) {
                _ if chart.rounds.is_empty() => None,
                (Some(before), Some(now)) => (before != now).then(|| {
                    let worked_ms = chart.total_ms - zero_ms;
                    let away_ms = now - before - worked_ms;
                    Pause((away_ms > 0.0).then_some(away_ms))
                }),
                // A model's times come from its own clock readings: they may reach a little into what follows.
                _ => (zero_ms + first_ms + SLACK_MS < chart.total_ms).then_some(Pause(None)),
            };
            if pause.is_some() {
                zero_ms = chart.total_ms;
            }
            zero_unix_ms = round.zero_unix_ms;
            // What comes before the first stage of a sitting is part of its first round.
            let first = pause.is_some() || chart.rounds.is_empty();
            let at_ms = if first { zero_ms } else { zero_ms + first_ms };
            chart.rounds.push(Beginning { round: round.no, at_ms, pause });
            chart.add(round, zero_ms);
        }
        (chart.total_ms > 0.0).then_some(chart)
    }

    fn add(&mut self, round: &Round, zero_ms: f64) {
        for span in &round.timeline {
            let turn = span.turn.and_then(|turn| round.turns.get(turn as usize));
            let lane = match turn.map(|turn| turn.role) {
                None => Lane::Frames,
                Some(TurnRole::Draft) => Lane::Draft,
                Some(TurnRole::Target) => Lane::Target,
            };
            let (from_ms, to_ms) = (zero_ms + span.began_ms, zero_ms + span.ended_ms.max(span.began_ms));
            self.spans.push(Span { lane, stage: span.stage, round: round.no, from_ms, to_ms });
            self.total_ms = self.total_ms.max(to_ms);
        }
    }

    /// The rows that have anything on them.
    pub(crate) fn lanes(&self) -> Vec<Lane> {
        let used = |lane: &Lane| self.spans.iter().any(|span| span.lane == *lane);
        Lane::ALL.into_iter().filter(used).collect()
    }

    /// What each stage took in all, of those that took any time.
    pub(crate) fn sums(&self) -> Vec<(Stage, f64)> {
        let sum = |stage| self.spans.iter().filter(|span| span.stage == stage).map(Span::ms).sum();
        let sums = STAGES.into_iter().map(|stage| (stage, sum(stage)));
        sums.filter(|(_, ms): &(Stage, f64)| *ms > 0.0).collect()
    }

    /// What is left: prompts, thumbnails, writing rounds down.
    pub(crate) fn rest_ms(&self) -> f64 {
        let told: f64 = self.sums().iter().map(|(_, ms)| ms).sum();
        (self.total_ms - told).max(0.0)
    }

    /// Rounds before which the work was interrupted, and for how long.
    pub(crate) fn interruptions(&self) -> Option<String> {
        let told = |round: &Beginning| {
            Some(match round.pause?.0 {
                Some(away_ms) => format!("{} (for {})", round.round, duration(away_ms)),
                None => round.round.to_string(),
            })
        };
        let before: Vec<String> = self.rounds.iter().filter_map(told).collect();
        (!before.is_empty()).then(|| format!("interrupted before round {}", before.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use spectemp_types::{StageSpan, Trace};

    use super::*;

    fn rounds() -> Vec<Round> {
        let trace: Trace = serde_json::from_str(include_str!("../tests/data/trace.json")).unwrap();
        trace.rounds
    }

    #[test]
    fn every_stage_is_on_the_lane_of_its_model() {
        let rounds = rounds();
        let chart = Chart::of(&rounds).unwrap();
        assert_eq!(chart.lanes(), Lane::ALL);
        assert_eq!(chart.spans.len(), rounds.iter().map(|round| round.timeline.len()).sum::<usize>());
        for span in &chart.spans {
            assert_eq!(span.lane == Lane::Frames, span.stage == Stage::Frames, "{span:?}");
        }
        let draft = chart.spans.iter().filter(|span| span.lane == Lane::Draft);
        assert!(draft.clone().count() > 0 && draft.clone().all(|span| span.round > 0));
        let told: f64 = chart.sums().iter().map(|(_, ms)| ms).sum();
        assert!((told + chart.rest_ms() - chart.total_ms).abs() < 1e-9 && chart.rest_ms() > 0.0);
        assert_eq!(chart.interruptions(), None);
    }

    #[test]
    fn a_later_sitting_stands_after_the_earlier_one() {
        let mut rounds = rounds();
        let end_ms = Chart::of(&rounds[..2]).unwrap().total_ms;
        let first_ms = rounds[2].timeline[0].began_ms;
        for span in &mut rounds[2].timeline {
            span.began_ms -= first_ms - 2.0;
            span.ended_ms -= first_ms - 2.0;
        }
        let chart = Chart::of(&rounds).unwrap();
        assert_eq!(chart.rounds[2], Beginning { round: 2, at_ms: end_ms, pause: Some(Pause(None)) });
        assert!(chart.spans.iter().filter(|span| span.round == 2).all(|span| span.from_ms >= end_ms + 2.0));
        assert_eq!(chart.interruptions().as_deref(), Some("interrupted before round 2"));
    }

    #[test]
    fn a_pause_is_as_long_as_the_clock_says() {
        let mut rounds = rounds();
        let worked_ms = Chart::of(&rounds[..2]).unwrap().total_ms;
        let pause = |rounds: &[Round]| Chart::of(rounds).unwrap().rounds[2].pause;
        rounds.iter_mut().for_each(|round| round.zero_unix_ms = Some(1_000_000.0));
        assert_eq!(pause(&rounds), None);
        // Its stages come late after its sitting's beginning, so that their times alone tell nothing.
        rounds[2].zero_unix_ms = Some(1_090_000.0);
        let away_ms = 90_000.0 - worked_ms;
        assert_eq!(pause(&rounds), Some(Pause(Some(away_ms))));
        let text = format!("interrupted before round 2 (for {})", duration(away_ms));
        assert_eq!(Chart::of(&rounds[..3]).unwrap().interruptions(), Some(text));
        // Another machine's clock is behind.
        rounds[2].zero_unix_ms = Some(999_999.0);
        assert_eq!(pause(&rounds), Some(Pause(None)));
    }

    #[test]
    fn rounds_without_stages_have_no_chart() {
        let mut rounds = rounds();
        rounds.iter_mut().for_each(|round| round.timeline.clear());
        assert_eq!(Chart::of(&rounds), None);
        assert_eq!(Chart::of(&[]), None);
        let nothing = StageSpan { stage: Stage::Frames, turn: None, began_ms: 0.0, ended_ms: 0.0 };
        rounds[0].timeline.push(nothing);
        assert_eq!(Chart::of(&rounds), None, "no time passed");
    }
}
