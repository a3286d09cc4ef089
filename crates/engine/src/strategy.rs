//! What a strategy does next: a function of the settings and the rounds so far, so a resumed job goes on as if it had
//! never stopped. `spectemp` is Algorithm 1 of arXiv 2512.00805; the baselines are loops of the same form.

use spectemp_types::{Evidence, FinalAnswer, FrameRef, Round, Settings, Strategy, TimeSpan, Verdict};

/// Which new frames a round shows to the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Look {
    /// Uniform over the whole video, keyframes within the tolerance.
    Whole,
    /// Dense in the span, chosen by the draft.
    Drafted,
    /// Uniform in the span.
    Uniform,
    /// Over the whole video, more of them in the predicted intervals.
    Weighted,
    /// None: the extra turn.
    Nothing,
}

/// The next round.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// Its number.
    pub(crate) no: u32,
    /// The segment to look at.
    pub(crate) span: TimeSpan,
    /// What to show of it.
    pub(crate) look: Look,
    /// True where an answer is demanded.
    pub(crate) is_final: bool,
}

/// The next round after `rounds`; none once there is an answer.
pub(crate) fn next_step(settings: &Settings, rounds: &[Round], duration_s: f64) -> Option<Step> {
    if matches!(rounds.last(), Some(Round { verdict: Verdict::Answer { .. }, .. })) {
        return None;
    }
    let no = rounds.len() as u32;
    let whole = TimeSpan { start_s: 0.0, end_s: duration_s };
    let (last, look) = match settings.strategy {
        Strategy::Uniform => (0, Look::Uniform),
        Strategy::SpecTemp => (settings.max_rounds, Look::Drafted),
        Strategy::TargetUniform => (settings.max_rounds, Look::Uniform),
        Strategy::PerceptionRounds => (settings.max_rounds.max(1) - 1, Look::Weighted),
    };
    let last_demands = settings.final_answer == FinalAnswer::InLastRound
        || matches!(settings.strategy, Strategy::Uniform | Strategy::PerceptionRounds);
    let is_final = no > last || (no == last && last_demands);
    let step = match no {
        0 => Step { no, span: whole, look: Look::Whole, is_final },
        _ if no > last => {
            Step { no, span: looked_at(rounds).unwrap_or(whole), look: Look::Nothing, is_final }
        }
        _ if look == Look::Weighted => Step { no, span: whole, look, is_final },
        _ => Step { no, span: wanted(rounds).unwrap_or(whole), look, is_final },
    };
    Some(step)
}

/// The last segment that the target asked for.
fn wanted(rounds: &[Round]) -> Option<TimeSpan> {
    rounds.iter().rev().find_map(|round| match round.verdict {
        Verdict::Segment { span } => Some(span),
        _ => None,
    })
}

/// The last segment whose frames were shown.
fn looked_at(rounds: &[Round]) -> Option<TimeSpan> {
    rounds.iter().rev().find(|round| !round.frames.is_empty()).map(|round| round.span)
}

/// What the answer rests on: the last segment with its frames, the whole video where round 0 answered; with predicted
/// intervals, each of them with the frames of the last round in it.
pub(crate) fn evidence(rounds: &[Round], intervals: &[TimeSpan]) -> Vec<Evidence> {
    let Some(shown) = rounds.iter().rev().find(|round| !round.frames.is_empty()) else { return Vec::new() };
    let spans = if intervals.is_empty() { &[shown.span][..] } else { intervals };
    let within = |span: &TimeSpan, frame: &&FrameRef| (span.start_s..=span.end_s).contains(&frame.pts_s);
    let of = |span: &TimeSpan| Evidence {
        start_s: span.start_s,
        end_s: span.end_s,
        frames_s: shown
            .frames
            .iter()
            .filter(|frame| intervals.is_empty() || within(span, frame))
            .map(|frame| frame.pts_s)
            .collect(),
    };
    spans.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use spectemp_types::{Chooser, IoFigures, Plan, StageTimes};

    use super::*;

    fn settings(overrides: &[&str]) -> Settings {
        Plan::named("paper16").unwrap().set_all(overrides.iter().copied()).unwrap().settings
    }

    fn round(no: u32, span: (f64, f64), frames_s: &[f64], verdict: Verdict) -> Round {
        let frame = |time: &f64| FrameRef {
            requested_s: *time,
            pts_s: *time,
            stream_pts_s: *time,
            keyframe: false,
            label: time.to_string(),
        };
        Round {
            version: Round::VERSION,
            no,
            span: TimeSpan { start_s: span.0, end_s: span.1 },
            dense: None,
            frames: frames_s.iter().map(frame).collect(),
            chosen_by: Chooser::Uniform,
            turns: Vec::new(),
            verdict,
            fallbacks: Vec::new(),
            warnings: Vec::new(),
            io: IoFigures::default(),
            times: StageTimes::default(),
            timeline: Vec::new(),
            zero_unix_ms: None,
        }
    }

    fn segment(start_s: f64, end_s: f64) -> Verdict {
        Verdict::Segment { span: TimeSpan { start_s, end_s } }
    }

    /// The steps of a loop whose target never answers: (look, span, final).
    fn steps(settings: &Settings) -> Vec<(Look, (f64, f64), bool)> {
        let mut rounds = Vec::new();
        let mut steps = Vec::new();
        while let Some(step) = next_step(settings, &rounds, 100.0) {
            let span = (step.span.start_s, step.span.end_s);
            steps.push((step.look, span, step.is_final));
            let next = f64::from(step.no) * 10.0;
            let frames: &[f64] = if step.look == Look::Nothing { &[] } else { &[next] };
            let answer = Verdict::Answer { text: String::new(), choice: None, confidence: 0.0 };
            rounds.push(round(
                step.no,
                span,
                frames,
                if step.is_final { answer } else { segment(next, next + 10.0) },
            ));
        }
        steps
    }

    #[test]
    fn algorithm_1() {
        let expected = [
            (Look::Whole, (0.0, 100.0), false),
            (Look::Drafted, (0.0, 10.0), false),
            (Look::Drafted, (10.0, 20.0), false),
            (Look::Drafted, (20.0, 30.0), false),
            (Look::Nothing, (20.0, 30.0), true),
        ];
        assert_eq!(steps(&settings(&[])), expected);
    }

    #[test]
    fn the_last_round_may_demand_the_answer() {
        let expected = [(Look::Whole, (0.0, 100.0), false), (Look::Uniform, (0.0, 10.0), true)];
        let settings = settings(&["strategy=target-uniform", "max_rounds=1", "final_answer=in_last_round"]);
        assert_eq!(steps(&settings), expected);
    }

    #[test]
    fn loops_without_a_draft() {
        let uniform = settings(&["strategy=uniform"]);
        assert_eq!(steps(&uniform), [(Look::Whole, (0.0, 100.0), true)]);
        let perception = settings(&["strategy=perception-rounds"]);
        let looks: Vec<_> =
            steps(&perception).into_iter().map(|(look, _, is_final)| (look, is_final)).collect();
        assert_eq!(looks, [(Look::Whole, false), (Look::Weighted, false), (Look::Weighted, true)]);
        let none = settings(&["strategy=perception-rounds", "max_rounds=0"]);
        assert_eq!(steps(&none), [(Look::Whole, (0.0, 100.0), true)]);
        let at_once = settings(&["max_rounds=0", "final_answer=in_last_round"]);
        assert_eq!(steps(&at_once), [(Look::Whole, (0.0, 100.0), true)]);
    }

    #[test]
    fn a_round_without_a_verdict_keeps_the_segment() {
        let rounds = [
            round(0, (0.0, 100.0), &[5.0], segment(10.0, 20.0)),
            round(1, (10.0, 20.0), &[12.0], Verdict::Nothing),
        ];
        let spans = |rounds: &[Round]| next_step(&settings(&[]), rounds, 100.0).unwrap().span;
        assert_eq!(spans(&rounds), TimeSpan { start_s: 10.0, end_s: 20.0 });
        assert_eq!(
            spans(&[round(0, (0.0, 100.0), &[5.0], Verdict::Nothing)]),
            TimeSpan { start_s: 0.0, end_s: 100.0 }
        );
    }

    #[test]
    fn evidence_is_the_last_segment_that_was_seen() {
        let rounds = [
            round(0, (0.0, 100.0), &[5.0, 50.0], segment(10.0, 20.0)),
            round(1, (10.0, 20.0), &[12.0, 13.0], segment(30.0, 40.0)),
            round(2, (10.0, 20.0), &[], Verdict::Nothing),
        ];
        let last = evidence(&rounds, &[]);
        assert_eq!(last, [Evidence { start_s: 10.0, end_s: 20.0, frames_s: vec![12.0, 13.0] }]);
        let first = evidence(&rounds[..1], &[]);
        assert_eq!(first, [Evidence { start_s: 0.0, end_s: 100.0, frames_s: vec![5.0, 50.0] }]);
        let interval = evidence(&rounds[..1], &[TimeSpan { start_s: 40.0, end_s: 60.0 }]);
        assert_eq!(interval, [Evidence { start_s: 40.0, end_s: 60.0, frames_s: vec![50.0] }]);
    }
}
