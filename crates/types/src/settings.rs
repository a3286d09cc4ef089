//! Plans are named settings; each setting can be overridden by name. All of them are stored with the answer.
//!
//! Pixel budgets of the paper plans: the paper names none, so they are Qwen2.5-VL's own: 256 visual tokens
//! (256·28·28 px) a frame for the target, the lower end of its model card's recommended range, and 128 tokens for the
//! draft, which sees many frames: the lower bound per frame of its video utilities. See docs/plans.md.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Which loop answers the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Algorithm 1 of the SpecTemp paper: the draft picks frames of the target's segment, the target verifies.
    #[serde(rename = "spectemp")]
    SpecTemp,
    /// `initial_frames` uniform frames and one answer.
    Uniform,
    /// As `spectemp`, but the frames of the segment are uniform: no draft.
    TargetUniform,
    /// The VideoChat-R1.5 loop: fresh single turns, only the predicted intervals carry over.
    PerceptionRounds,
}

/// What the target keeps of earlier rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// Earlier frames and texts stay in the context, which only grows.
    Full,
    /// Line 12 of Algorithm 1: only the earlier reasoning traces.
    Traces,
}

/// How a loop ends that found no answer in its rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinalAnswer {
    /// One more call after the last round (the paper).
    ExtraTurn,
    /// The last round already demands an answer (the demonstration pair).
    InLastRound,
}

/// What scales a frame to the model's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scaler {
    /// Pillow's antialiased bicubic, as the reference processor.
    Pillow,
    /// FFmpeg's swscale, bicubic: faster, other pixels.
    Swscale,
}

/// Whether models are held to the form of their turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Constrain {
    /// Only what the loop can read is written, where the backend can do that.
    On,
    /// Models write what they like. What rounds were made under before there was a choice.
    #[default]
    Off,
}

/// Everything that decides how a question is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Which loop.
    pub strategy: Strategy,
    /// K: uniform frames of round 0.
    pub initial_frames: u32,
    /// k: salient frames per later round.
    pub frames_per_round: u32,
    /// T_max: rounds after round 0.
    pub max_rounds: u32,
    /// δ: dense frames per second in the segment.
    pub dense_fps: f64,
    /// Most dense frames; δ is lowered to meet it.
    pub dense_cap: u32,
    /// Most pixels of a frame for the target.
    pub target_pixels: u32,
    /// Most pixels of a frame for the draft.
    pub draft_pixels: u32,
    /// What the target keeps of earlier rounds.
    pub history: History,
    /// How a loop without an answer ends.
    pub final_answer: FinalAnswer,
    /// How far a keyframe may lie from a wanted time, as a fraction of the sampling step.
    pub keyframe_tolerance: f64,
    /// Most new tokens per turn.
    pub max_new_tokens: u32,
    /// Most tokens of a thought; then it is closed for the model.
    #[serde(default = "unlimited")]
    pub think_tokens: u32,
    /// Whether models are held to the form of their turn.
    #[serde(default)]
    pub constrain: Constrain,
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus sampling's mass.
    pub top_p: f64,
    /// Seed of sampling, mixed with the job and the round.
    pub seed: u64,
    /// What scales frames.
    pub scaler: Scaler,
}

/// A name and the settings it stands for, overrides applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// `paper16`, `paper64` or `demo`.
    pub name: String,
    /// The settings in force.
    pub settings: Settings,
}

/// Why there is no such plan or setting.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// Unknown plan.
    #[error("unknown plan {0:?}: use one of {list}", list = Plan::NAMES.join(", "))]
    Plan(String),
    /// Unknown setting.
    #[error("unknown setting {0:?}: use one of {list}", list = Settings::names().join(", "))]
    Setting(String),
    /// `--set` without `=`.
    #[error("setting {0:?} is not of the form key=value")]
    Form(String),
    /// A value of the wrong type or outside its bounds.
    #[error("setting {name} cannot be {value}: {cause}")]
    Value {
        /// The setting.
        name: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        cause: String,
    },
}

const TOKEN_PIXELS: u32 = 28 * 28;
const MOST_TOKENS: u32 = 32_768;

/// What settings that were written before there was a limit mean.
fn unlimited() -> u32 {
    MOST_TOKENS
}

impl Plan {
    /// The names of all plans.
    pub const NAMES: [&'static str; 3] = ["paper16", "paper64", "demo"];

    /// The plan of that name.
    ///
    /// # Errors
    /// [`PlanError::Plan`] where there is none.
    pub fn named(name: &str) -> Result<Self, PlanError> {
        let paper16 = Settings {
            strategy: Strategy::SpecTemp,
            initial_frames: 10,
            frames_per_round: 2,
            max_rounds: 3,
            dense_fps: 1.0,
            dense_cap: 64,
            target_pixels: 256 * TOKEN_PIXELS,
            draft_pixels: 128 * TOKEN_PIXELS,
            history: History::Full,
            final_answer: FinalAnswer::ExtraTurn,
            keyframe_tolerance: 0.5,
            max_new_tokens: 1024,
            think_tokens: 1024,
            constrain: Constrain::On,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            scaler: Scaler::Pillow,
        };
        let settings = match name {
            "paper16" => paper16,
            "paper64" => Settings { initial_frames: 32, frames_per_round: 8, max_rounds: 4, ..paper16 },
            "demo" => Settings {
                dense_cap: 440,
                target_pixels: 56 * 56,
                draft_pixels: 28 * 28,
                final_answer: FinalAnswer::InLastRound,
                keyframe_tolerance: 0.12,
                max_new_tokens: 64,
                think_tokens: 64,
                ..paper16
            },
            _ => return Err(PlanError::Plan(name.to_owned())),
        };
        Ok(Self { name: name.to_owned(), settings })
    }

    /// Applies `key=value` overrides, the last one of a key wins.
    ///
    /// # Errors
    /// An override without `=`, an unknown key, a value that does not fit.
    pub fn set_all<'a>(mut self, overrides: impl IntoIterator<Item = &'a str>) -> Result<Self, PlanError> {
        for text in overrides {
            let (key, value) = text.split_once('=').ok_or_else(|| PlanError::Form(text.to_owned()))?;
            let value = value.trim();
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            self.settings = self.settings.with(key.trim(), value)?;
        }
        Ok(self)
    }

    /// Applies a job's `"set"` object.
    ///
    /// # Errors
    /// An unknown key, a value that does not fit.
    pub fn set_object(mut self, overrides: &Map<String, Value>) -> Result<Self, PlanError> {
        for (key, value) in overrides {
            self.settings = self.settings.with(key, value.clone())?;
        }
        Ok(self)
    }
}

impl Settings {
    /// The names of all settings.
    pub fn names() -> Vec<String> {
        match Plan::named("paper16").map(|plan| serde_json::to_value(plan.settings)) {
            Ok(Ok(Value::Object(map))) => map.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// These settings with one of them changed.
    ///
    /// # Errors
    /// [`PlanError::Setting`] for an unknown name, [`PlanError::Value`] for a value that does not fit.
    pub fn with(&self, name: &str, value: Value) -> Result<Self, PlanError> {
        let fail =
            |cause: String| PlanError::Value { name: name.to_owned(), value: value.to_string(), cause };
        let Ok(Value::Object(mut map)) = serde_json::to_value(self) else {
            return Err(fail("settings cannot be written as an object".to_owned()));
        };
        if !map.contains_key(name) {
            return Err(PlanError::Setting(name.to_owned()));
        }
        map.insert(name.to_owned(), value.clone());
        let changed: Self =
            serde_json::from_value(Value::Object(map)).map_err(|cause| fail(cause.to_string()))?;
        changed.check(name).map_err(fail)?;
        Ok(changed)
    }

    /// Bounds of the setting `name`.
    fn check(&self, name: &str) -> Result<(), String> {
        let within = |ok: bool, bounds: &str| if ok { Ok(()) } else { Err(format!("it must be {bounds}")) };
        match name {
            "initial_frames" => within((1..=2048).contains(&self.initial_frames), "1 to 2048"),
            "frames_per_round" => within((1..=512).contains(&self.frames_per_round), "1 to 512"),
            "max_rounds" => within(self.max_rounds <= 64, "0 to 64"),
            "dense_fps" => within(self.dense_fps > 0.0 && self.dense_fps <= 240.0, "over 0, at most 240"),
            "dense_cap" => within((1..=4096).contains(&self.dense_cap), "1 to 4096"),
            "target_pixels" => within((784..=16_777_216).contains(&self.target_pixels), "784 to 16777216"),
            "draft_pixels" => within((784..=16_777_216).contains(&self.draft_pixels), "784 to 16777216"),
            "keyframe_tolerance" => within((0.0..=0.5).contains(&self.keyframe_tolerance), "0 to 0.5"),
            "max_new_tokens" => within((1..=MOST_TOKENS).contains(&self.max_new_tokens), "1 to 32768"),
            "think_tokens" => within(self.think_tokens <= MOST_TOKENS, "0 to 32768"),
            "temperature" => within((0.0..=5.0).contains(&self.temperature), "0 to 5"),
            "top_p" => within(self.top_p > 0.0 && self.top_p <= 1.0, "over 0, at most 1"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_and_bad_values_are_refused_by_name() {
        let plan = || Plan::named("paper16").unwrap();
        assert!(Plan::named("paper17").unwrap_err().to_string().contains("paper16, paper64, demo"));
        assert!(plan().set_all(["frames=3"]).unwrap_err().to_string().contains("initial_frames"));
        assert_eq!(plan().set_all(["seed"]), Err(PlanError::Form("seed".into())));
        for bad in [
            "initial_frames=0",
            "dense_fps=-1",
            "history=some",
            "max_rounds=1.5",
            "top_p=0",
            "temperature=NaN",
            "think_tokens=-1",
            "constrain=maybe",
        ] {
            assert!(matches!(plan().set_all([bad]), Err(PlanError::Value { .. })), "{bad}");
        }
    }

    #[test]
    fn overrides_apply_in_order() {
        let plan = Plan::named("paper64").unwrap();
        let plan = plan.set_all(["strategy=uniform", "initial_frames=8", "initial_frames = 16"]).unwrap();
        assert_eq!(plan.settings.strategy, Strategy::Uniform);
        assert_eq!(plan.settings.initial_frames, 16);
        assert_eq!(plan.settings.frames_per_round, 8);
        assert_eq!(plan.settings.constrain, Constrain::On);
        assert_eq!(plan.set_all(["constrain=off"]).unwrap().settings.constrain, Constrain::Off);
    }

    #[test]
    fn settings_of_old_rounds_mean_what_they_did() {
        let Ok(Value::Object(mut old)) = serde_json::to_value(Plan::named("demo").unwrap().settings) else {
            unreachable!()
        };
        old.remove("think_tokens");
        old.remove("constrain");
        let read: Settings = serde_json::from_value(Value::Object(old)).unwrap();
        assert_eq!((read.think_tokens, read.constrain), (MOST_TOKENS, Constrain::Off));
    }
}
