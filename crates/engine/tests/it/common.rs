//! What the tests share.

use std::sync::Arc;

use spectemp_engine::{
    ModelCard, Outcome, PromptTemplates, Session, SessionError, Setup,
    testing::{ScriptedVlm, StillFrames, card},
};
use spectemp_types::{JobSpec, Plan, Question, Round, VideoUri};
use tokio_util::sync::CancellationToken;

/// A job on a video of 300 s.
pub(crate) fn spec(plan: &str, overrides: &[&str], choices: &[&str]) -> JobSpec {
    let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
    JobSpec {
        id: "q1".to_owned(),
        video: VideoUri::parse("videos/one.mp4").unwrap(),
        question: Question::new("What digit flashes in the red scene?", choices).unwrap(),
        plan: Plan::named(plan).unwrap().set_all(overrides.iter().copied()).unwrap(),
    }
}

/// The cards of the demonstration pair: its own templates and sizes.
pub(crate) fn demo_card(name: &str) -> ModelCard {
    let read = |path: &str| {
        std::fs::read_to_string(format!("{}/../../models/demo/{path}", env!("CARGO_MANIFEST_DIR")))
    };
    let mut card = card(name);
    card.templates = PromptTemplates {
        target: Some(read("target/prompts/target.jinja").unwrap()),
        draft: Some(read("draft/prompts/draft.jinja").unwrap()),
    };
    card.pixels.min_pixels = 784;
    card
}

pub(crate) fn setup(spec: JobSpec, target: &Arc<ScriptedVlm>, draft: &Arc<ScriptedVlm>) -> Setup {
    Setup {
        spec,
        target: target.clone(),
        draft: Some(draft.clone()),
        frames: Arc::new(StillFrames::lasting(300.0)),
        cancel: CancellationToken::new(),
    }
}

/// Target and draft that say one line after the other.
pub(crate) fn pair(
    card: fn(&str) -> ModelCard,
    target: &[&str],
    draft: &[&str],
) -> (Arc<ScriptedVlm>, Arc<ScriptedVlm>) {
    (Arc::new(ScriptedVlm::lines(card("target"), target)), Arc::new(ScriptedVlm::lines(card("draft"), draft)))
}

/// Runs to the answer.
pub(crate) async fn run(setup: Setup, earlier: Vec<Round>) -> Result<(Vec<Round>, Outcome), SessionError> {
    let mut session = Session::new(setup, earlier)?;
    while session.next_round().await?.is_some() {}
    Ok((session.rounds().to_vec(), session.finish()?))
}
