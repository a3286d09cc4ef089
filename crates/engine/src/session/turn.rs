//! One generation, and what a round gathers while it is made.

use std::sync::Arc;

use spectemp_types::{
    Constrain, DenseSample, Fallback, IoFigures, Stage, StageSpan, StageTimes, Turn, TurnKind, TurnRole,
};

use super::Job;
use crate::sampling::recorded;
use crate::{Ending, Generation, Grammar, Message, Request, Sampling, Score, SessionError, Vlm};

/// What a model is asked.
pub(super) struct Ask<'a> {
    pub(super) role: TurnRole,
    pub(super) kind: TurnKind,
    pub(super) messages: &'a [Message],
    /// What may end its turn.
    pub(super) endings: Vec<Ending>,
}

/// Where the candidates of a multiple-choice question begin.
const ANSWER: &str = "<answer>";

/// A round under construction.
pub(super) struct Work {
    pub(super) no: u32,
    pub(super) dense: Option<DenseSample>,
    pub(super) turns: Vec<Turn>,
    pub(super) fallbacks: Vec<Fallback>,
    pub(super) warnings: Vec<String>,
    pub(super) io: IoFigures,
    pub(super) times: StageTimes,
    pub(super) timeline: Vec<StageSpan>,
}

impl Work {
    pub(super) fn new(no: u32) -> Self {
        Self {
            no,
            dense: None,
            turns: Vec::new(),
            fallbacks: Vec::new(),
            warnings: Vec::new(),
            io: IoFigures::default(),
            times: StageTimes::default(),
            timeline: Vec::new(),
        }
    }

    /// Records the stages of the turn that is recorded next, which was asked for at `asked_ms`: they follow each other.
    fn pass(&mut self, asked_ms: f64, times: &StageTimes) {
        let turn = Some(self.turns.len() as u32);
        let mut began_ms = asked_ms;
        let stages = [
            (Stage::Wait, times.wait_ms),
            (Stage::Vision, times.vision_ms),
            (Stage::Prefill, times.prefill_ms),
            (Stage::Generate, times.generate_ms),
        ];
        for (stage, ms) in stages {
            let ended_ms = recorded(began_ms + ms);
            self.timeline.push(StageSpan { stage, turn, began_ms, ended_ms });
            began_ms = ended_ms;
        }
    }

    /// Tells a reader something once per round.
    fn warn(&mut self, warning: Option<&str>) {
        if let Some(warning) = warning.filter(|warning| !self.warnings.iter().any(|known| known == warning)) {
            self.warnings.push(warning.to_owned());
        }
    }

    /// Records a fallback once per round.
    pub(super) fn fall_back(&mut self, fallbacks: impl IntoIterator<Item = Fallback>) {
        for fallback in fallbacks {
            if !self.fallbacks.contains(&fallback) {
                self.fallbacks.push(fallback);
            }
        }
    }
}

impl Job {
    /// Lets a model speak, and records the turn.
    pub(super) async fn speak(&self, ask: Ask<'_>, work: &mut Work) -> Result<Generation, SessionError> {
        self.go_on()?;
        let settings = &self.setup.spec.plan.settings;
        let Ask { role, kind, messages, endings } = ask;
        let model = self.model(role)?;
        let grammar = Grammar { endings };
        let request = Request {
            messages: messages.to_vec(),
            sampling: Sampling {
                temperature: settings.temperature,
                top_p: settings.top_p,
                seed: self.turn_seed(role, work.no, work.turns.len()),
            },
            max_new_tokens: settings.max_new_tokens,
            think_tokens: settings.think_tokens,
            stops: grammar.stops(),
            grammar: (settings.constrain == Constrain::On && model.card().abilities.constraint)
                .then_some(grammar),
            score: self.score(role),
            cancel: self.setup.cancel.clone(),
        };
        let asked_ms = self.elapsed_ms();
        let generation = model
            .generate(request)
            .await
            .map_err(|source| SessionError::Model { role: role_name(role), source })?;
        work.times += generation.times;
        work.warn(doubt(role, self.score(role).is_some(), &generation));
        work.pass(asked_ms, &generation.times);
        work.turns.push(Turn {
            role,
            kind,
            text: generation.text.clone(),
            token_ids: generation.token_ids(),
            finish: generation.finish,
            tokens: generation.counts,
            times: generation.times,
        });
        Ok(generation)
    }

    /// Milliseconds since the work on the job began.
    pub(super) fn elapsed_ms(&self) -> f64 {
        recorded(self.began.elapsed().as_secs_f64() * 1e3)
    }

    /// Fails once the session is cancelled.
    pub(super) fn go_on(&self) -> Result<(), SessionError> {
        if self.setup.cancel.is_cancelled() { Err(SessionError::Cancelled) } else { Ok(()) }
    }

    pub(super) fn model(&self, role: TurnRole) -> Result<&Arc<dyn Vlm>, SessionError> {
        match role {
            TurnRole::Target => Ok(&self.setup.target),
            TurnRole::Draft => {
                self.setup.draft.as_ref().ok_or(SessionError::NoDraft { strategy: "spectemp" })
            }
        }
    }

    /// The options, for the target of a multiple-choice question.
    fn score(&self, role: TurnRole) -> Option<Score> {
        let question = &self.setup.spec.question;
        (role == TurnRole::Target && !question.choices.is_empty()).then(|| Score {
            after: ANSWER.to_owned(),
            candidates: self.target_prompts.choices_as.candidates(question),
        })
    }

    /// The same turn of the same job always has the same seed.
    fn turn_seed(&self, role: TurnRole, round: u32, turn: usize) -> u64 {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.setup.spec.plan.settings.seed.to_le_bytes());
        hash.update(&self.seed.to_le_bytes());
        hash.update(role_name(role).as_bytes());
        hash.update(&round.to_le_bytes());
        hash.update(&(turn as u64).to_le_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}

/// Why the confidence of this turn's answer says nothing, where it does not. Only the target's is ever told.
fn doubt(role: TurnRole, scored: bool, generation: &Generation) -> Option<&'static str> {
    if role == TurnRole::Draft {
        return None;
    }
    if scored {
        let silent = generation.scores.is_none() && generation.text.contains(ANSWER);
        return silent
            .then_some("the target gave no probabilities of the options: the confidence says nothing");
    }
    let silent = generation.tokens.is_empty() && !generation.text.is_empty();
    silent.then_some("the target gave no probabilities of its tokens: the confidence says nothing")
}

fn role_name(role: TurnRole) -> &'static str {
    match role {
        TurnRole::Target => "target",
        TurnRole::Draft => "draft",
    }
}
