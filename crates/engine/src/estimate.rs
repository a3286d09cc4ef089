//! What a job will cost before it runs: frames and tokens, from where round 0 answers to where every round is needed.

use std::ops::AddAssign;

use serde::Serialize;
use spectemp_types::{FinalAnswer, History, Settings, Strategy};

use crate::{ModelCard, PixelBudget, PixelError, VideoFacts, sampling::dense_count, smart_resize};

/// From the least to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Between {
    /// If the first round answers.
    pub least: u64,
    /// If all rounds are needed and every segment is as long as the video.
    pub most: u64,
}

impl AddAssign for Between {
    fn add_assign(&mut self, other: Self) {
        self.least += other.least;
        self.most += other.most;
    }
}

/// Expected cost of a job; estimates of several jobs add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Frames that the target sees.
    pub target_frames: Between,
    /// Frames that the draft sees.
    pub draft_frames: Between,
    /// Visual tokens of both models, each frame counted once per prompt that it newly enters.
    pub visual_tokens: Between,
    /// Tokens to generate, reminders aside: one per turn at least, `max_new_tokens` at most.
    pub new_tokens: Between,
}

impl Estimate {
    /// Frames that the models see.
    pub fn frames(&self) -> Between {
        let mut sum = self.target_frames;
        sum += self.draft_frames;
        sum
    }

    /// Visual and generated tokens. The few text tokens of the prompts are not counted: no tokenizer is at hand.
    pub fn tokens(&self) -> Between {
        let mut sum = self.visual_tokens;
        sum += self.new_tokens;
        sum
    }
}

impl AddAssign for Estimate {
    fn add_assign(&mut self, other: Self) {
        self.target_frames += other.target_frames;
        self.draft_frames += other.draft_frames;
        self.visual_tokens += other.visual_tokens;
        self.new_tokens += other.new_tokens;
    }
}

/// The size that a model sees frames at: at most `max_pixels`, the checkpoint's own bounds otherwise.
pub(crate) fn budget(card: &ModelCard, max_pixels: u32) -> PixelBudget {
    let PixelBudget { min_pixels, multiple, .. } = card.pixels;
    PixelBudget { min_pixels: min_pixels.min(max_pixels), max_pixels, multiple }
}

/// What one job on a video costs under these settings.
///
/// # Errors
/// [`PixelError::Aspect`] where the models cannot see such frames.
pub fn estimate(
    settings: &Settings,
    facts: VideoFacts,
    target: &ModelCard,
    draft: Option<&ModelCard>,
) -> Result<Estimate, PixelError> {
    let first = u64::from(settings.initial_frames);
    let rounds = later_rounds(settings);
    let per_round = match settings.strategy {
        Strategy::PerceptionRounds => first,
        _ => u64::from(settings.frames_per_round),
    };
    let dense = match settings.strategy {
        Strategy::SpecTemp => {
            dense_count(facts.duration_s, settings.dense_fps).min(u64::from(settings.dense_cap))
        }
        _ => 0,
    };
    let target_token = tokens_per_frame(facts, budget(target, settings.target_pixels))?;
    let draft_token =
        draft.map_or(Ok(0), |card| tokens_per_frame(facts, budget(card, settings.draft_pixels)))?;
    let extra = u64::from(has_extra_turn(settings));
    // Without history the extra turn shows the last frames again.
    let again = if settings.history == History::Traces {
        extra * if rounds == 0 { first } else { per_round }
    } else {
        0
    };
    let target_frames =
        Between { least: least_frames(settings, first, per_round), most: first + rounds * per_round };
    let draft_frames = Between { least: 0, most: rounds * dense };
    let turns = Between {
        least: least_turns(settings),
        most: 1 + rounds + extra + if dense > 0 { rounds } else { 0 },
    };
    Ok(Estimate {
        target_frames,
        draft_frames,
        visual_tokens: Between {
            least: target_frames.least * target_token,
            most: (target_frames.most + again) * target_token + draft_frames.most * draft_token,
        },
        new_tokens: Between { least: turns.least, most: turns.most * u64::from(settings.max_new_tokens) },
    })
}

/// Rounds with new frames after round 0, at most.
fn later_rounds(settings: &Settings) -> u64 {
    u64::from(match settings.strategy {
        Strategy::Uniform => 0,
        Strategy::SpecTemp | Strategy::TargetUniform => settings.max_rounds,
        Strategy::PerceptionRounds => settings.max_rounds.max(1) - 1,
    })
}

fn has_extra_turn(settings: &Settings) -> bool {
    matches!(settings.strategy, Strategy::SpecTemp | Strategy::TargetUniform)
        && settings.final_answer == FinalAnswer::ExtraTurn
}

/// Perception rounds never end early; the others may end with round 0.
fn least_frames(settings: &Settings, first: u64, per_round: u64) -> u64 {
    match settings.strategy {
        Strategy::PerceptionRounds => first + later_rounds(settings) * per_round,
        _ => first,
    }
}

fn least_turns(settings: &Settings) -> u64 {
    match settings.strategy {
        Strategy::PerceptionRounds => 1 + later_rounds(settings),
        _ => 1,
    }
}

fn tokens_per_frame(facts: VideoFacts, budget: PixelBudget) -> Result<u64, PixelError> {
    let (width, height) = smart_resize(facts.width, facts.height, budget)?;
    Ok(u64::from(width / budget.multiple) * u64::from(height / budget.multiple))
}

#[cfg(test)]
mod tests {
    use spectemp_types::Plan;

    use super::*;
    use crate::testing::card;

    fn estimated(plan: &str, overrides: &[&str]) -> Estimate {
        let settings = Plan::named(plan).unwrap().set_all(overrides.iter().copied()).unwrap().settings;
        let facts = VideoFacts { duration_s: 1800.0, width: 112, height: 112 };
        estimate(&settings, facts, &card("target"), Some(&card("draft"))).unwrap()
    }

    #[test]
    fn the_demo_plan() {
        let estimate = estimated("demo", &[]);
        assert_eq!(estimate.target_frames, Between { least: 10, most: 16 });
        assert_eq!(estimate.draft_frames, Between { least: 0, most: 3 * 440 });
        assert_eq!(estimate.visual_tokens, Between { least: 40, most: 64 + 3 * 440 });
        assert_eq!(estimate.new_tokens, Between { least: 1, most: 7 * 64 });
        assert_eq!(estimate.frames().most, 16 + 1320);
    }

    #[test]
    fn the_baselines() {
        let uniform = estimated("demo", &["strategy=uniform", "initial_frames=16"]);
        assert_eq!(uniform.frames(), Between { least: 16, most: 16 });
        assert_eq!(uniform.tokens(), Between { least: 65, most: 128 });
        let perception = estimated("paper16", &["strategy=perception-rounds"]);
        assert_eq!(perception.frames(), Between { least: 30, most: 30 });
    }

    #[test]
    fn traces_show_the_last_frames_again() {
        let (full, traces) = (estimated("paper16", &[]), estimated("paper16", &["history=traces"]));
        assert_eq!(full.target_frames, traces.target_frames);
        assert!(traces.visual_tokens.most > full.visual_tokens.most);
    }
}
