//! A round is one turn of the target (and the draft's turn before it): the unit of the checkpoint.
//! It holds all that is needed to go on: texts, spans, frame times, tokens. KV caches are never state.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{IoFigures, StageTimes, TimeSpan, TokenCounts};

/// One frame as it was asked for and as it was shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FrameRef {
    /// The time that was wanted, in seconds.
    pub requested_s: f64,
    /// The frame's time, in seconds from the first displayed frame.
    pub pts_s: f64,
    /// The same on the container's own clock.
    pub stream_pts_s: f64,
    /// True for a keyframe.
    pub keyframe: bool,
    /// The label that the prompt shows for it.
    pub label: String,
}

/// Who chose the frames that the target sees in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Chooser {
    /// Uniform over the whole video or the segment, as the strategy says.
    Uniform,
    /// The draft.
    Draft,
    /// Uniform over the dense frames, because the draft's choice could not be used.
    UniformFallback,
    /// No new frames in this round (the extra turn).
    None,
}

/// The dense frames that the draft saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DenseSample {
    /// δ in force, frames per second.
    pub fps: f64,
    /// True where δ was lowered to meet `dense_cap`.
    pub lowered: bool,
    /// The frames, in rising order of time.
    pub frames: Vec<FrameRef>,
}

/// Which model spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnRole {
    /// The target.
    Target,
    /// The draft.
    Draft,
}

/// Why a model was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnKind {
    /// The regular turn of its round.
    Regular,
    /// Asked again because its output could not be read.
    Reminder,
    /// The final answer was demanded.
    Final,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnFinish {
    /// The model ended its turn.
    EndOfTurn,
    /// It wrote the tag that closes its turn.
    Stop,
    /// `max_new_tokens` was reached.
    Length,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Turn {
    /// Which model.
    pub role: TurnRole,
    /// Why it was asked.
    pub kind: TurnKind,
    /// The text it wrote, without the end token.
    pub text: String,
    /// The same as token ids, so that a resumed context is the same token by token.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish: TurnFinish,
    /// Tokens of prompt and output.
    pub tokens: TokenCounts,
    /// Vision, prefill and generation times.
    pub times: StageTimes,
}

/// What was going on in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Frames were read and decoded.
    Frames,
    /// A turn waited for the model.
    Wait,
    /// Its images went through the vision tower.
    Vision,
    /// The new tokens of its prompt ran.
    Prefill,
    /// Its tokens were generated, and candidates scored.
    Generate,
}

/// When a stage began and ended, in milliseconds since the round's `zero_unix_ms`: when the work on the job began (or went
/// on, after an interruption).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageSpan {
    /// Which stage.
    pub stage: Stage,
    /// Number of the round's turn that it belongs to, from 0; none for frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u32>,
    /// Its beginning.
    pub began_ms: f64,
    /// Its end.
    pub ended_ms: f64,
}

/// What a round came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// An answer: the loop ends.
    Answer {
        /// The answer's text: the option's text for multiple choice.
        text: String,
        /// The option's letter, for multiple choice.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        choice: Option<char>,
        /// Probability of the option, or exp of the mean token log-probability of an open answer.
        confidence: f64,
    },
    /// A segment to look at in the next round.
    Segment {
        /// It, clamped to the video.
        span: TimeSpan,
    },
    /// Neither could be read; the next round goes on without a new segment.
    Nothing,
}

/// How a model's malformed output was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// The segment reached outside the video and was cut to it.
    SegmentClamped,
    /// The segment's times were reversed and were swapped.
    SegmentReversed,
    /// The segment held nothing of the video (or could not be read) and was dropped: the last one, or the whole video, stays.
    SegmentDropped,
    /// The segment was one moment and was widened by a dense step on either side.
    SegmentWidened,
    /// The segment held more than two times: the first two count.
    ExtraTimes,
    /// Both an answer and a segment were given: the answer counts.
    AnswerOverSegment,
    /// A tag was given twice: the last one that holds something counts.
    TagRepeated,
    /// A tag was not closed: it reaches to the next tag or the end of the text.
    TagUnclosed,
    /// The draft named labels that it was not shown; they were left out.
    UnknownLabels,
    /// The draft named a label twice; it counts once.
    DuplicateLabels,
    /// The draft named more frames than wanted; the first ones count.
    TooManyFrames,
    /// The draft named fewer frames than wanted; the rest was filled uniformly.
    TooFewFrames,
    /// The draft's choice could not be used at all: uniform picks.
    UniformPicks,
    /// The output could not be read and the model was reminded of the format.
    Reminded,
    /// The final answer was demanded because the output could not be read.
    ForcedFinal,
    /// The final answer carried no readable tag: its whole text was taken.
    UntaggedAnswer,
    /// The answer was no option: the most probable option was taken.
    MostProbableOption,
}

/// One round. `no` 0 sees uniform frames of the whole video.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Round {
    /// Version of this form.
    pub version: u32,
    /// Number of the round, from 0.
    pub no: u32,
    /// The segment that was looked at; the whole video in round 0.
    pub span: TimeSpan,
    /// What the draft saw, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense: Option<DenseSample>,
    /// The new frames that the target saw, in the order shown.
    pub frames: Vec<FrameRef>,
    /// Who chose them.
    pub chosen_by: Chooser,
    /// The generations, in order.
    pub turns: Vec<Turn>,
    /// What it came to.
    pub verdict: Verdict,
    /// How malformed outputs were dealt with, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<Fallback>,
    /// What a reader should know, such as a time past the end of the video.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Requests, bytes and decoded frames of this round.
    pub io: IoFigures,
    /// Milliseconds per stage, all turns together.
    pub times: StageTimes,
    /// When each stage began and ended, in order. Stages of other jobs on the same models overlap with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<StageSpan>,
    /// The zero of `timeline` as Unix time in milliseconds, by the machine's clock: the time lines of jobs that ran together
    /// can be laid over each other. Rounds of builds that did not write it yet have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_unix_ms: Option<f64>,
}

impl Round {
    /// The version that this program writes.
    pub const VERSION: u32 = 1;

    /// Tokens of all turns.
    pub fn tokens(&self) -> TokenCounts {
        let mut sum = TokenCounts::default();
        for turn in &self.turns {
            sum += turn.tokens;
        }
        sum
    }
}
