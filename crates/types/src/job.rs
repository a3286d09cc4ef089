//! A job is one question about one video under one plan.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Plan, Question, VideoUri};

/// Everything that a job's answer depends on, besides the models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobSpec {
    /// The user's own id, unique in its batch.
    pub id: String,
    /// The video.
    pub video: VideoUri,
    /// The question.
    pub question: Question,
    /// The plan, overrides applied.
    pub plan: Plan,
}

/// A hash over the content of a job (without its id): the same content gives the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl JobSpec {
    /// The hash over video (without query), question, plan and settings.
    pub fn fingerprint(&self) -> Fingerprint {
        let content = serde_json::json!([self.video, self.question, self.plan]);
        Fingerprint(*blake3::hash(content.to_string().as_bytes()).as_bytes())
    }
}

impl Fingerprint {
    /// The first eight bytes as a number: the job's part of a sampling seed.
    pub fn seed(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }

    /// All bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Waits for a worker.
    Queued,
    /// Leased by a worker.
    Running,
    /// Has its answer.
    Answered,
    /// Ended with an error.
    Failed,
    /// Cancelled by its owner.
    Cancelled,
}

impl JobStatus {
    /// The word in rows and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A word that is no status.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown job status {0:?}")]
pub struct UnknownStatus(pub String);

impl FromStr for JobStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Queued, Self::Running, Self::Answered, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
