//! The form of each turn: what the loop can read there, as a grammar.

use spectemp_types::Strategy;

use super::{Conversation, Job};
use crate::{
    AnswerForm, Decimal, Ending, LabelKind, Times,
    prompt::{Scene, Shown},
};

/// Most intervals of a perception turn.
const MOST_INTERVALS: u32 = 8;

impl Job {
    /// What may end the target's turn; `conversation` holds the scene already.
    pub(super) fn target_endings(&self, scene: &Scene<'_>, conversation: &Conversation) -> Vec<Ending> {
        let answer = self.answer_form();
        if scene.is_final {
            return vec![Ending::Answer(answer)];
        }
        let times = self.times(scene, conversation);
        match self.setup.spec.plan.settings.strategy {
            Strategy::PerceptionRounds => {
                let most = most_intervals(&times, self.setup.spec.plan.settings.max_new_tokens);
                vec![Ending::AnswerAndGlue { answer, times, most }]
            }
            _ => vec![Ending::Answer(answer), Ending::Segment(times)],
        }
    }

    fn answer_form(&self) -> AnswerForm {
        let question = &self.setup.spec.question;
        if question.choices.is_empty() {
            AnswerForm::Free
        } else {
            AnswerForm::Options(self.target_prompts.choices_as.candidates(question))
        }
    }

    /// Times as the template shows them, so that every pair of them names a part of the video.
    fn times(&self, scene: &Scene<'_>, conversation: &Conversation) -> Times {
        let labels = self.target_prompts.labels;
        let decimals = match labels {
            LabelKind::Index => {
                let frames = conversation.shown_s.len() as u64;
                let number = |units| Decimal { units, decimals: 0 };
                return Times { first: number(frames), second: number(frames + 1) };
            }
            LabelKind::WholeSeconds => 0,
            LabelKind::Seconds => scene.frames.iter().map(decimals).max().unwrap_or(0).max(1),
        };
        let clock = self.clock(&conversation.shown_s);
        Times {
            first: Decimal::below(clock.duration_s, decimals),
            second: Decimal::at_most(clock.limit_s, decimals),
        }
    }
}

/// As many intervals as half of a turn can hold, however they are cut into tokens: a model that repeats itself ends its
/// list.
fn most_intervals(times: &Times, max_new_tokens: u32) -> u32 {
    let interval = "(, ), ".len() as u32 + width(times.first) + width(times.second);
    (max_new_tokens / 2 / interval).clamp(1, MOST_INTERVALS)
}

/// Bytes of the longest number up to this one.
fn width(most: Decimal) -> u32 {
    let digits = most.units.max(1).ilog10() + 1;
    digits.max(most.decimals + 1) + u32::from(most.decimals > 0)
}

/// What ends the draft's turn: labels of the frames shown, as many as are wanted.
pub(super) fn draft_endings(frames: &[Shown], want: usize) -> Vec<Ending> {
    let labels: Vec<String> = frames.iter().map(|shown| shown.frame.label.clone()).collect();
    let most = want.min(labels.len()) as u32;
    vec![Ending::Frames { labels, most }]
}

fn decimals(shown: &Shown) -> u32 {
    shown.frame.label.split_once('.').map_or(0, |(_, digits)| digits.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_intervals_fits_its_turn() {
        let time = Decimal { units: 612, decimals: 1 };
        let times = Times { first: time, second: time };
        // `(61.2, 61.2), ` is 14 bytes, so at most 14 tokens.
        for (max_new_tokens, most) in [(4, 1), (96, 3), (1024, 8)] {
            assert_eq!(most_intervals(&times, max_new_tokens), most, "{max_new_tokens}");
        }
    }
}
