//! A trace is all rounds of a job with everything that decided them: versioned JSON, one object per job. Its schema lies
//! in `schema/trace.v1.json`, held by a test.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Answer, IoFigures, JobId, JobSpec, Round, StageTimes, TokenCounts};

/// Which weights answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelRevision {
    /// Folder, repository or endpoint name.
    pub name: String,
    /// A revision or content hash.
    pub revision: String,
}

/// Which video, in which version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceVideo {
    /// Its URI without the query.
    pub uri: String,
    /// The object's ETag or version, where the store gives one.
    pub etag: Option<String>,
    /// The object's size.
    pub bytes: u64,
    /// Length in seconds.
    pub duration_s: f64,
    /// Displayed width in pixels.
    pub width: u32,
    /// Displayed height in pixels.
    pub height: u32,
}

/// Sums over all rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Rounds, round 0 included.
    pub rounds: u32,
    /// Frames that the target saw.
    pub target_frames: u32,
    /// Frames that the draft saw.
    pub draft_frames: u32,
    /// Tokens of all turns.
    pub tokens: TokenCounts,
    /// Requests, bytes and decoded frames.
    pub io: IoFigures,
    /// Milliseconds per stage.
    pub times: StageTimes,
}

impl Totals {
    /// The sums over `rounds`.
    pub fn of(rounds: &[Round]) -> Self {
        let mut totals = Self { rounds: rounds.len() as u32, ..Self::default() };
        for round in rounds {
            totals.target_frames += round.frames.len() as u32;
            totals.draft_frames += round.dense.as_ref().map_or(0, |dense| dense.frames.len() as u32);
            totals.tokens += round.tokens();
            totals.io += round.io;
            totals.times += round.times;
        }
        totals
    }
}

/// The whole story of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trace {
    /// Version of this form.
    pub version: u32,
    /// The job.
    pub job_id: JobId,
    /// What was asked, under which settings.
    pub spec: JobSpec,
    /// The video as it was.
    pub video: TraceVideo,
    /// The target's weights.
    pub target: ModelRevision,
    /// The draft's weights, where the strategy has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<ModelRevision>,
    /// All rounds.
    pub rounds: Vec<Round>,
    /// The answer.
    pub answer: Answer,
    /// Sums.
    pub totals: Totals,
}

impl Trace {
    /// The version that this program writes.
    pub const VERSION: u32 = 1;
}
