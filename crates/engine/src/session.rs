//! A session answers one job: it makes one round after the other until there is an answer. It holds nothing that the
//! rounds do not: a session made from earlier rounds makes the same rounds as one that never stopped, because the
//! conversation is rebuilt from their texts, token ids and frame times, and sampling is seeded per turn.

mod conversation;
mod draft;
mod form;
mod look;
mod target;
mod turn;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use spectemp_types::{Answer, Chooser, JobSpec, Round, Strategy, TimeSpan, Totals, Verdict};
use tokio_util::sync::CancellationToken;

use crate::{
    FrameSource, SessionError, Vlm,
    prompt::{Prompts, Scene},
    sampling::recorded,
    strategy::{self, Look, Step},
    verdict::Clock,
};
use conversation::Conversation;
use turn::Work;

/// What a session needs.
pub struct Setup {
    /// The job.
    pub spec: JobSpec,
    /// The model that reasons and answers.
    pub target: Arc<dyn Vlm>,
    /// The model that picks frames; only the strategy `spectemp` asks it.
    pub draft: Option<Arc<dyn Vlm>>,
    /// The video.
    pub frames: Arc<dyn FrameSource>,
    /// Ends the session between two stages, and inside of them where they can.
    pub cancel: CancellationToken,
}

/// One job on its way to an answer.
pub struct Session {
    job: Job,
    rounds: Vec<Round>,
    /// What the target has in its context, under `history = full`; made again from the rounds where it is missing.
    conversation: Option<Conversation>,
    /// What the next round is to say in its warnings.
    notes: Vec<String>,
}

/// What a finished session leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The answer with its evidence.
    pub answer: Answer,
    /// Sums over all rounds.
    pub totals: Totals,
}

/// What stays the same through all rounds.
struct Job {
    setup: Setup,
    /// When the work on it began.
    began: Instant,
    /// The same by the machine's clock, as Unix time in milliseconds.
    zero_unix_ms: f64,
    /// The job's part of every seed.
    seed: u64,
    duration_s: f64,
    target_prompts: Prompts,
    draft_prompts: Option<Prompts>,
}

impl Session {
    /// A session that goes on after `earlier` rounds of the same job; none of them is made again.
    ///
    /// # Errors
    /// A missing draft, a template that does not render, a video without length, rounds that have gaps or another
    /// version.
    pub fn new(setup: Setup, earlier: Vec<Round>) -> Result<Self, SessionError> {
        check_rounds(&earlier)?;
        Ok(Self { job: Job::new(setup)?, rounds: earlier, conversation: None, notes: Vec::new() })
    }

    /// Tells a reader of the trace something that the caller knows: the next round has it among its warnings.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Makes the next round; `None` once there is an answer. Write the round down before asking for the next.
    ///
    /// # Errors
    /// What frames and models cannot do, or cancellation. The session stays as it was, and after a transient error
    /// it can be asked again.
    pub async fn next_round(&mut self) -> Result<Option<Round>, SessionError> {
        let settings = &self.job.setup.spec.plan.settings;
        let Some(step) = strategy::next_step(settings, &self.rounds, self.job.duration_s) else {
            return Ok(None);
        };
        // Taken, so that an error half-way leaves none rather than a wrong one.
        let (mut round, conversation) = self.job.round(step, &self.rounds, self.conversation.take()).await?;
        round.warnings.append(&mut self.notes);
        tracing::debug!(
            round.no = round.no,
            round.frames = round.frames.len(),
            round.turns = round.turns.len(),
            round.fallbacks = round.fallbacks.len(),
            "round done"
        );
        self.conversation = conversation;
        self.rounds.push(round.clone());
        Ok(Some(round))
    }

    /// All rounds so far, earlier ones included.
    pub fn rounds(&self) -> &[Round] {
        &self.rounds
    }

    /// The answer with its evidence, and the sums.
    ///
    /// # Errors
    /// [`SessionError::Unfinished`] before there is an answer.
    pub fn finish(self) -> Result<Outcome, SessionError> {
        let unfinished = || SessionError::Unfinished { rounds: self.rounds.len() };
        let Verdict::Answer { text, choice, confidence } =
            self.rounds.last().ok_or_else(unfinished)?.verdict.clone()
        else {
            return Err(unfinished());
        };
        let intervals = self.job.intervals(&self.rounds[..self.rounds.len() - 1]);
        let evidence = strategy::evidence(&self.rounds, &intervals);
        Ok(Outcome {
            answer: Answer { text, choice, confidence, evidence },
            totals: Totals::of(&self.rounds),
        })
    }
}

impl Job {
    fn new(setup: Setup) -> Result<Self, SessionError> {
        let duration_s = recorded(setup.frames.facts().duration_s);
        if !(duration_s.is_finite() && duration_s > 0.0) {
            return Err(SessionError::NoVideo { duration_s });
        }
        let spec = &setup.spec;
        let own = &setup.target.card().templates.target;
        let target_prompts = Prompts::target(own.as_deref(), spec, duration_s)?;
        let draft_prompts = match (&setup.draft, spec.plan.settings.strategy) {
            (Some(draft), Strategy::SpecTemp) => {
                let own = &draft.card().templates.draft;
                Some(Prompts::draft(own.as_deref(), spec, duration_s)?)
            }
            (None, Strategy::SpecTemp) => return Err(SessionError::NoDraft { strategy: "spectemp" }),
            _ => None,
        };
        let seed = spec.fingerprint().seed();
        let (began, now) = (Instant::now(), SystemTime::now());
        // A machine whose clock stands before 1970 tells no time at all.
        let zero_unix_ms = now.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1e3);
        let zero_unix_ms = recorded(zero_unix_ms);
        Ok(Self { began, zero_unix_ms, seed, duration_s, target_prompts, draft_prompts, setup })
    }

    /// Makes one round, and gives the conversation that the next one continues.
    async fn round(
        &self,
        step: Step,
        rounds: &[Round],
        conversation: Option<Conversation>,
    ) -> Result<(Round, Option<Conversation>), SessionError> {
        let mut work = Work::new(step.no);
        let mut conversation = self.conversation(&step, rounds, conversation, &mut work).await?;
        let (shown, chosen_by) = self.look(&step, rounds, &conversation, &mut work).await?;
        let traces = self.findings(rounds);
        let scene = Scene {
            frames: &shown,
            is_final: step.is_final,
            round: step.no,
            segment: (step.no > 0 && !self.perceives()).then_some(step.span),
            think: "",
            traces: &traces,
        };
        let verdict = self.target_turns(&scene, &mut conversation, &mut work).await?;
        // Frames that are shown again are not new ones.
        let new = if step.look == Look::Nothing { Vec::new() } else { shown };
        let round = Round {
            version: Round::VERSION,
            no: step.no,
            span: step.span,
            dense: work.dense,
            frames: new.into_iter().map(|shown| shown.frame).collect(),
            chosen_by: if step.look == Look::Nothing { Chooser::None } else { chosen_by },
            turns: work.turns,
            verdict,
            fallbacks: work.fallbacks,
            warnings: work.warnings,
            io: work.io,
            times: work.times,
            timeline: work.timeline,
            zero_unix_ms: Some(self.zero_unix_ms),
        };
        Ok((round, self.keeps_history().then_some(conversation)))
    }

    /// The intervals in force after these perception rounds: an output without any leaves those before it, one that
    /// cannot be read clears them.
    fn intervals(&self, rounds: &[Round]) -> Vec<TimeSpan> {
        if !self.perceives() {
            return Vec::new();
        }
        let mut intervals = Vec::new();
        for round in rounds {
            let shown_s: Vec<f64> = round.frames.iter().map(|frame| frame.pts_s).collect();
            if let Some(new) = target::written_intervals(round, self.clock(&shown_s)) {
                intervals = new;
            }
        }
        intervals
    }

    /// What times in the target's outputs are measured by.
    fn clock<'a>(&self, shown_s: &'a [f64]) -> Clock<'a> {
        let limit_s = self.target_prompts.duration_label(&[]).parse().unwrap_or(self.duration_s);
        Clock {
            labels: self.target_prompts.labels,
            shown_s,
            duration_s: self.duration_s,
            limit_s: self.duration_s.max(limit_s),
            step_s: 1.0 / self.setup.spec.plan.settings.dense_fps,
        }
    }
}

/// Rounds are resumed only if they are whole: numbered from 0, of this version, and ended by at most one answer.
fn check_rounds(rounds: &[Round]) -> Result<(), SessionError> {
    for (expected, round) in (0..).zip(rounds) {
        if round.version != Round::VERSION {
            let (found, known) = (round.version, Round::VERSION);
            return Err(SessionError::Resume(format!(
                "round {expected} has version {found}, this program knows {known}"
            )));
        }
        if round.no != expected {
            return Err(SessionError::Resume(format!(
                "round {expected} is missing, {} stands in its place",
                round.no
            )));
        }
    }
    let before_last = rounds.split_last().map_or(&[][..], |(_, before)| before);
    if let Some(round) = before_last.iter().find(|round| matches!(round.verdict, Verdict::Answer { .. })) {
        return Err(SessionError::Resume(format!("round {} has an answer, yet others follow it", round.no)));
    }
    Ok(())
}
