//! Prompts are minijinja templates, one file per model. Each block is the *content* of one message; the checkpoint's
//! own chat template, applied by the backend, adds the turns around it.
//!
//! Blocks: `system` (empty: no system turn), `first`, `reminder`, and `next` for the target. At the top level a
//! template sets `labels` (`"seconds"`, `"whole_seconds"`, `"index"`) and, for the target, `choices_as`
//! (`"letters"`, `"texts"`; letters by default).
//!
//! | variable | what it is |
//! |---|---|
//! | `frames` | the new frames, each with `label`, `time_s`, `image`; a block with frames shows each image once, in order |
//! | `duration_s`, `duration_label` | the video's length, as a number and as the labels would write it |
//! | `question`, `choices` | the question; its options, each with `letter` and `text` |
//! | `final` | true where an answer is demanded |
//! | `segment` | the part looked at, with `start` and `end` as labels; none in round 0 |
//! | `think` | for the draft: what the target just thought |
//! | `traces` | earlier thoughts, each with `round`, `think`, `segment`; filled under `history = traces` |
//! | `frames_per_round`, `round`, `strategy` | the setting, the round's number, the strategy's name |
//!
//! Texts from outside (question, options, thoughts) cannot forge turns or images: spellings of special tokens
//! (`<|…|>`) are broken up by a space, and the characters that stand for an image are replaced.

use minijinja::{Environment, State, UndefinedBehavior, Value, context};
use spectemp_types::{FrameRef, JobSpec, Question, TimeSpan, TurnRole};

use crate::{ChoicesAs, LabelKind, ModelCard, Part, RgbImage, SessionError};

/// The built-in prompts for stock checkpoints.
const TARGET: &str = include_str!("../prompts/target.jinja");
const DRAFT: &str = include_str!("../prompts/draft.jinja");

/// A short hash of the prompts that a model is asked with in this role: its folder's own, or the built-in ones.
pub fn prompt_revision(card: &ModelCard, role: TurnRole) -> String {
    let source = match role {
        TurnRole::Target => card.templates.target.as_deref().unwrap_or(TARGET),
        TurnRole::Draft => card.templates.draft.as_deref().unwrap_or(DRAFT),
    };
    blake3::hash(source.as_bytes()).to_hex()[..16].to_owned()
}

/// An image stands in rendered text as its number between these two private characters.
const IMAGE_START: char = '\u{F8F0}';
const IMAGE_END: char = '\u{F8F1}';

/// A frame with its label and its pixels for one model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) frame: FrameRef,
    pub(crate) image: RgbImage,
}

/// Extends a model's template so that its top level and one block run, never the others: those may rely on what only
/// their own messages have.
fn one_block(name: &str, blocks: &[Block]) -> String {
    let block = |block: &Block| {
        let block = block.name();
        format!(
            "{{% block {block} %}}{{% if one_block == '{block}' %}}{{{{ super() }}}}{{% endif %}}{{% endblock %}}"
        )
    };
    format!("{{% extends '{name}' %}}{}", blocks.iter().map(block).collect::<String>())
}

const ONE_BLOCK: &str = "one block";

/// One message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    System,
    First,
    Next,
    Reminder,
}

impl Block {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::First => "first",
            Self::Next => "next",
            Self::Reminder => "reminder",
        }
    }
}

/// What a message is about, besides the job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene<'a> {
    pub(crate) frames: &'a [Shown],
    pub(crate) is_final: bool,
    pub(crate) round: u32,
    pub(crate) segment: Option<TimeSpan>,
    pub(crate) think: &'a str,
    pub(crate) traces: &'a [Finding],
}

/// What an earlier round came to: a reasoning trace of Algorithm 1, line 12.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) round: u32,
    pub(crate) think: String,
    pub(crate) segment: Option<TimeSpan>,
}

/// One model's prompts for one job.
pub(crate) struct Prompts {
    name: &'static str,
    environment: Environment<'static>,
    job: JobView,
    /// How frames are named.
    pub(crate) labels: LabelKind,
    /// How options are named.
    pub(crate) choices_as: ChoicesAs,
}

/// What the job gives to every message, texts already made harmless.
struct JobView {
    duration_s: f64,
    question: String,
    choices: Vec<Value>,
    frames_per_round: u32,
    strategy: String,
}

impl Prompts {
    /// The target's prompts: its folder's own or the built-in ones.
    pub(crate) fn target(own: Option<&str>, spec: &JobSpec, duration_s: f64) -> Result<Self, SessionError> {
        let blocks = [Block::System, Block::First, Block::Next, Block::Reminder];
        Self::new("target", own.unwrap_or(TARGET), &blocks, JobView::new(spec, duration_s))
    }

    /// The draft's prompts.
    pub(crate) fn draft(own: Option<&str>, spec: &JobSpec, duration_s: f64) -> Result<Self, SessionError> {
        let blocks = [Block::System, Block::First, Block::Reminder];
        Self::new("draft", own.unwrap_or(DRAFT), &blocks, JobView::new(spec, duration_s))
    }

    fn new(name: &'static str, source: &str, blocks: &[Block], job: JobView) -> Result<Self, SessionError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let wrong = |cause: String| SessionError::Template { name, cause };
        let sources = [(name, source.to_owned()), (ONE_BLOCK, one_block(name, blocks))];
        for (name, source) in sources {
            environment.add_template_owned(name, source).map_err(|error| wrong(explain(&error)))?;
        }
        let (labels, choices_as) = (LabelKind::Seconds, ChoicesAs::Letters);
        let mut prompts = Self { name, environment, job, labels, choices_as };
        let labels = prompts.declared("labels")?.unwrap_or_else(|| "seconds".to_owned());
        prompts.labels = LabelKind::named(&labels)
            .ok_or_else(|| wrong(format!("labels is {labels:?}: use seconds, whole_seconds or index")))?;
        let choices_as = prompts.declared("choices_as")?.unwrap_or_else(|| "letters".to_owned());
        prompts.choices_as = ChoicesAs::named(&choices_as)
            .ok_or_else(|| wrong(format!("choices_as is {choices_as:?}: use letters or texts")))?;
        for block in blocks {
            prompts.render(*block, &Scene::default())?;
        }
        Ok(prompts)
    }

    /// A top-level `{% set name = "…" %}` of the template.
    fn declared(&self, name: &str) -> Result<Option<String>, SessionError> {
        self.run(None, &Scene::default(), |state| {
            let value = state.lookup(name).filter(|value| !value.is_undefined());
            Ok(value.map(|value| value.to_string()))
        })
    }

    /// The parts of one message.
    pub(crate) fn render(&self, block: Block, scene: &Scene<'_>) -> Result<Vec<Part>, SessionError> {
        let text = self.run(Some(block), scene, |state| state.render_block(block.name()))?;
        parts(&text, scene.frames).map_err(|cause| SessionError::Template {
            name: self.name,
            cause: format!("block {}: {cause}", block.name()),
        })
    }

    /// Runs the template's top level with the variables of a message, and then `read`.
    fn run<T>(
        &self,
        block: Option<Block>,
        scene: &Scene<'_>,
        read: impl FnOnce(&mut State<'_, '_>) -> Result<T, minijinja::Error>,
    ) -> Result<T, SessionError> {
        let wanted = context! { one_block => block.map(Block::name) };
        let run = || {
            let template = self.environment.get_template(ONE_BLOCK)?;
            let mut captured = template.render_captured(context! { ..wanted, ..self.view(scene) })?;
            captured.with_state_mut(|state| read(state))
        };
        let at = block.map(|block| format!("block {}: ", block.name())).unwrap_or_default();
        let wrong = |error| SessionError::Template { name: self.name, cause: at + &explain(&error) };
        run().map_err(wrong)
    }

    fn view(&self, scene: &Scene<'_>) -> Value {
        let segment = |span: TimeSpan| {
            context! { start => self.labels.time(span.start_s, None), end => self.labels.time(span.end_s, None) }
        };
        let frames: Vec<Value> = (0..).zip(scene.frames).map(|(k, shown)| frame_view(k, shown)).collect();
        let trace = |finding: &Finding| {
            let segment = finding.segment.map(segment);
            context! { round => finding.round, think => outside(&finding.think), segment }
        };
        let traces: Vec<Value> = scene.traces.iter().map(trace).collect();
        context! {
            frames, traces,
            segment => scene.segment.map(segment),
            duration_s => self.job.duration_s,
            duration_label => self.duration_label(scene.frames),
            question => self.job.question.clone(),
            choices => self.job.choices.clone(),
            frames_per_round => self.job.frames_per_round,
            strategy => self.job.strategy.clone(),
            final => scene.is_final,
            round => scene.round,
            think => outside(scene.think),
        }
    }

    /// The video's length as the labels write it, after the last of the frames.
    pub(crate) fn duration_label(&self, frames: &[Shown]) -> String {
        self.labels.time(self.job.duration_s, frames.last().map(|shown| shown.frame.label.as_str()))
    }
}

impl JobView {
    fn new(spec: &JobSpec, duration_s: f64) -> Self {
        let choices = spec.question.choices.iter().enumerate();
        let choices =
            choices.map(|(k, text)| context! { letter => Question::letter(k), text => outside(text) });
        let strategy = serde_json::to_value(spec.plan.settings.strategy).ok();
        Self {
            duration_s,
            question: outside(&spec.question.text),
            choices: choices.collect(),
            frames_per_round: spec.plan.settings.frames_per_round,
            strategy: strategy.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned(),
        }
    }
}

fn frame_view(number: usize, shown: &Shown) -> Value {
    let image = format!("{IMAGE_START}{number}{IMAGE_END}");
    context! { label => shown.frame.label.clone(), time_s => shown.frame.pts_s, image }
}

/// A text from outside, trimmed, that can be neither a special token nor an image.
pub(crate) fn outside(text: &str) -> String {
    let text = text.trim().replace("<|", "< |").replace("|>", "| >");
    text.replace([IMAGE_START, IMAGE_END], "\u{FFFD}")
}

/// Rendered text cut at its images, each of which must stand in it once and in order.
fn parts(text: &str, frames: &[Shown]) -> Result<Vec<Part>, String> {
    let mut pieces = text.split(IMAGE_START);
    let mut parts = vec![Part::Text(pieces.next().unwrap_or_default().to_owned())];
    let mut images = frames.iter().enumerate();
    for piece in pieces {
        let (number, after) = piece.split_once(IMAGE_END).ok_or("an image was cut in two")?;
        let (k, shown) = images.next().ok_or("an image stands in it twice")?;
        if number.parse() != Ok(k) {
            return Err(format!("image {number} stands where image {k} belongs"));
        }
        parts.push(Part::Image(shown.image.clone()));
        parts.push(Part::Text(after.to_owned()));
    }
    let missing = images.count();
    if missing > 0 {
        return Err(format!(
            "{missing} of {} frames are not shown: write {{{{ frame.image }}}}",
            frames.len()
        ));
    }
    parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
    Ok(parts)
}

/// The error with the causes behind it.
fn explain(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
