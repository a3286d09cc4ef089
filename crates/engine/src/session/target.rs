//! The target's turns of a round: the regular one, at most one reminder, and a demand where neither could be read.

use spectemp_types::{Fallback, Round, Strategy, TimeSpan, TurnKind, TurnRole, Verdict};

use super::{
    Conversation, Job,
    turn::{Ask, Work},
};
use crate::{
    Generation, SessionError,
    parse::parse,
    prompt::{Finding, Scene, outside},
    verdict::{Clock, Judge, Reading},
};

impl Job {
    /// Asks the target, as often as the policy allows, and says what came of it.
    pub(super) async fn target_turns(
        &self,
        scene: &Scene<'_>,
        conversation: &mut Conversation,
        work: &mut Work,
    ) -> Result<Verdict, SessionError> {
        let kind = if scene.is_final { TurnKind::Final } else { TurnKind::Regular };
        let first = self.target_turn(kind, scene, conversation, work).await?;
        if self.perceives() && !scene.is_final {
            return Ok(self.perceived(&first, conversation, work));
        }
        let (reading, fallbacks) = self.judge(conversation).read(&first, scene.is_final);
        if let Reading::Usable(verdict) = reading {
            work.fall_back(fallbacks);
            return Ok(verdict);
        }
        self.insist(&Scene { frames: &[], ..scene.clone() }, conversation, work).await
    }

    /// The reminder, and what is taken where it does not help.
    async fn insist(
        &self,
        scene: &Scene<'_>,
        conversation: &mut Conversation,
        work: &mut Work,
    ) -> Result<Verdict, SessionError> {
        work.fall_back([Fallback::Reminded]);
        let mut last = self.target_turn(TurnKind::Reminder, scene, conversation, work).await?;
        let (mut reading, mut fallbacks) = self.judge(conversation).read(&last, scene.is_final);
        if reading == Reading::Unreadable && !scene.is_final {
            work.fall_back(fallbacks);
            work.fall_back([Fallback::ForcedFinal]);
            let demand = Scene { is_final: true, ..scene.clone() };
            last = self.target_turn(TurnKind::Final, &demand, conversation, work).await?;
            (reading, fallbacks) = self.judge(conversation).read(&last, true);
        }
        work.fall_back(fallbacks);
        match reading {
            Reading::Usable(verdict) => Ok(verdict),
            Reading::UselessSegment => {
                work.fall_back([Fallback::SegmentDropped]);
                Ok(Verdict::Nothing)
            }
            Reading::NoOption | Reading::Unreadable => {
                let (verdict, fallbacks) = self.judge(conversation).force(&last);
                work.fall_back(fallbacks);
                Ok(verdict)
            }
        }
    }

    /// One turn: asked, generated, heard.
    async fn target_turn(
        &self,
        kind: TurnKind,
        scene: &Scene<'_>,
        conversation: &mut Conversation,
        work: &mut Work,
    ) -> Result<Generation, SessionError> {
        conversation.ask(&self.target_prompts, kind, scene)?;
        let endings = self.target_endings(scene, conversation);
        let ask = Ask { role: TurnRole::Target, kind, messages: &conversation.messages, endings };
        let generation = self.speak(ask, work).await?;
        conversation.hear(&generation);
        Ok(generation)
    }

    fn judge<'a>(&'a self, conversation: &'a Conversation) -> Judge<'a> {
        Judge {
            question: &self.setup.spec.question,
            choices_as: self.target_prompts.choices_as,
            clock: self.clock(&conversation.shown_s),
        }
    }

    /// What a perception round came to: the hull of its intervals. Its tentative answer does not count.
    fn perceived(&self, generation: &Generation, conversation: &Conversation, work: &mut Work) -> Verdict {
        let clock = self.clock(&conversation.shown_s);
        let intervals = intervals_in(&generation.text, clock);
        work.fall_back(parse(&generation.text).flaws);
        let Some(intervals) = intervals else { return Verdict::Nothing };
        if intervals.is_empty() {
            work.fall_back([Fallback::SegmentDropped]);
            return Verdict::Nothing;
        }
        let start_s = intervals.iter().map(|span| span.start_s).fold(f64::INFINITY, f64::min);
        let end_s = intervals.iter().map(|span| span.end_s).fold(f64::NEG_INFINITY, f64::max);
        Verdict::Segment { span: TimeSpan { start_s, end_s } }
    }

    /// The reasoning traces of earlier rounds, where the target does not have them in its context.
    pub(super) fn findings(&self, rounds: &[Round]) -> Vec<Finding> {
        if self.keeps_history() || self.perceives() {
            return Vec::new();
        }
        let segment = |round: &Round| match round.verdict {
            Verdict::Segment { span } => Some(span),
            _ => None,
        };
        let finding =
            |round: &Round| Finding { round: round.no, think: last_thought(round), segment: segment(round) };
        rounds.iter().map(finding).collect()
    }

    /// True for the baseline whose rounds are fresh chats.
    pub(super) fn perceives(&self) -> bool {
        self.setup.spec.plan.settings.strategy == Strategy::PerceptionRounds
    }
}

/// What the target thought last in a round: its thought, or where it wrote none the text outside of its tags.
pub(super) fn last_thought(round: &Round) -> String {
    let turns = round.turns.iter().rev().filter(|turn| turn.role == TurnRole::Target);
    let thought = |text: &str| {
        let reply = parse(text);
        reply.think.or(reply.plain).map(|range| outside(&text[range]))
    };
    turns.filter_map(|turn| thought(&turn.text)).next().unwrap_or_default()
}

/// The intervals that a perception round wrote: none where it has no tag for them, an empty list where they cannot be
/// read.
pub(super) fn written_intervals(round: &Round, clock: Clock<'_>) -> Option<Vec<TimeSpan>> {
    let turn = round.turns.iter().rev().find(|turn| turn.role == TurnRole::Target)?;
    intervals_in(&turn.text, clock)
}

fn intervals_in(text: &str, clock: Clock<'_>) -> Option<Vec<TimeSpan>> {
    let reply = parse(text);
    let range = reply.glue.or(reply.segment)?;
    Some(clock.spans(&text[range]))
}
