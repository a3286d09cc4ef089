//! An answer and what it rests on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A span of the video and the frames of it that the target saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// First second.
    pub start_s: f64,
    /// Last second.
    pub end_s: f64,
    /// Times of the frames (their PTS, seconds from the first displayed frame), rising.
    pub frames_s: Vec<f64>,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The answer's text: the option's text for multiple choice.
    #[serde(rename = "answer")]
    pub text: String,
    /// The option's letter, for multiple choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<char>,
    /// 0 to 1: the option's probability, or exp of the mean token log-probability of an open answer.
    pub confidence: f64,
    /// The last segment with its chosen frames; the whole span with its frames where round 0 answered.
    pub evidence: Vec<Evidence>,
}
