//! The target's context. Under `history = full` it only grows: messages that stand in it never change, so a backend
//! prefills nothing twice. After a restart it is built again from the rounds, message by message the same.

use std::collections::HashMap;

use spectemp_types::{FrameRef, History, Round, TurnKind, TurnRole};

use super::{Job, look::FRAME_SLACK_S, turn::Work};
use crate::{
    Frame, FrameMode, Generation, Message, Part, RgbImage, Role, SessionError,
    prompt::{Block, Prompts, Scene, Shown},
    strategy::Step,
};

/// Messages, and the frames in them.
pub(super) struct Conversation {
    pub(super) messages: Vec<Message>,
    /// Times of all frames shown, in order.
    pub(super) shown_s: Vec<f64>,
}

impl Conversation {
    /// A conversation with its system turn, where the template has one.
    pub(super) fn open(prompts: &Prompts) -> Result<Self, SessionError> {
        let parts = prompts.render(Block::System, &Scene::default())?;
        let system = (!parts.is_empty()).then_some(Message { role: Role::System, parts });
        Ok(Self { messages: system.into_iter().collect(), shown_s: Vec::new() })
    }

    /// Adds a user's turn: the first one of a conversation has its own block.
    pub(super) fn ask(
        &mut self,
        prompts: &Prompts,
        kind: TurnKind,
        scene: &Scene<'_>,
    ) -> Result<(), SessionError> {
        let begun = self.messages.iter().any(|message| message.role == Role::User);
        let block = match kind {
            TurnKind::Reminder => Block::Reminder,
            _ if begun => Block::Next,
            _ => Block::First,
        };
        let parts = prompts.render(block, scene)?;
        self.messages.push(Message { role: Role::User, parts });
        self.shown_s.extend(scene.frames.iter().map(|shown| shown.frame.pts_s));
        Ok(())
    }

    /// Adds what the model said.
    pub(super) fn hear(&mut self, generation: &Generation) {
        self.hear_parts(generation.text.clone(), generation.token_ids());
    }

    fn hear_parts(&mut self, text: String, token_ids: Vec<u32>) {
        self.messages
            .push(Message { role: Role::Assistant, parts: vec![Part::Generated { text, token_ids }] });
    }

    /// Adds the target's turns of an earlier round as they were.
    fn replay(&mut self, prompts: &Prompts, round: &Round, shown: &[Shown]) -> Result<(), SessionError> {
        let segment = (round.no > 0).then_some(round.span);
        let mut demanded = false;
        for (k, turn) in round.turns.iter().filter(|turn| turn.role == TurnRole::Target).enumerate() {
            demanded = demanded || turn.kind == TurnKind::Final;
            let frames = if k == 0 { shown } else { &[] };
            let scene = Scene { frames, is_final: demanded, round: round.no, segment, ..Scene::default() };
            self.ask(prompts, turn.kind, &scene)?;
            self.hear_parts(turn.text.clone(), turn.token_ids.clone());
        }
        Ok(())
    }
}

impl Job {
    /// True where the target's context goes on from round to round.
    pub(super) fn keeps_history(&self) -> bool {
        self.setup.spec.plan.settings.history == History::Full && !self.perceives()
    }

    /// The context that a round continues: the one at hand, the one rebuilt, or a fresh one.
    pub(super) async fn conversation(
        &self,
        step: &Step,
        rounds: &[Round],
        at_hand: Option<Conversation>,
        work: &mut Work,
    ) -> Result<Conversation, SessionError> {
        match at_hand {
            Some(conversation) => Ok(conversation),
            None if step.no > 0 && self.keeps_history() => self.rebuild(rounds, work).await,
            None => Conversation::open(&self.target_prompts),
        }
    }

    async fn rebuild(&self, rounds: &[Round], work: &mut Work) -> Result<Conversation, SessionError> {
        let frames: Vec<&FrameRef> = rounds.iter().flat_map(|round| &round.frames).collect();
        let images = self.again(&frames, work).await?;
        let mut conversation = Conversation::open(&self.target_prompts)?;
        for round in rounds {
            let image = |frame: &FrameRef| images.get(&frame.pts_s.to_bits()).cloned();
            let shown: Vec<Shown> = round
                .frames
                .iter()
                .filter_map(|frame| Some(Shown { frame: frame.clone(), image: image(frame)? }))
                .collect();
            conversation.replay(&self.target_prompts, round, &shown)?;
        }
        Ok(conversation)
    }

    /// The images of frames that were shown before, by the bits of their times.
    pub(super) async fn again(
        &self,
        frames: &[&FrameRef],
        work: &mut Work,
    ) -> Result<HashMap<u64, RgbImage>, SessionError> {
        let mut times: Vec<f64> = frames.iter().map(|frame| frame.pts_s).collect();
        times.sort_by(f64::total_cmp);
        times.dedup();
        if times.is_empty() {
            return Ok(HashMap::new());
        }
        // A hair later than the frame itself: a time that went through text may have lost its last bit.
        let wanted = times.iter().map(|time| time + FRAME_SLACK_S).collect();
        let found = self.fetch(wanted, FrameMode::Exact, vec![self.target_size()], work).await?;
        let image = |time: f64| {
            let same = |frame: &&Frame| (frame.pts_s - time).abs() < 2.0 * FRAME_SLACK_S;
            let frame = found.iter().find(same).ok_or_else(|| changed(time))?;
            Ok((time.to_bits(), frame.images[0].clone()))
        };
        times.into_iter().map(image).collect()
    }
}

fn changed(time_s: f64) -> SessionError {
    SessionError::Resume(format!(
        "the video has no frame at {time_s} s any more: it is not the video of these rounds"
    ))
}
