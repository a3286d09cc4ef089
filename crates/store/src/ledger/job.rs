//! Jobs and answers as they are read back.

use std::{fmt::Display, str::FromStr};

use spectemp_types::{Answer, Evidence, JobId, JobSpec, JobStatus, ModelRevision, Totals, TraceVideo};
use sqlx::{Decode, Row, Sqlite, Type, sqlite::SqliteRow};

use crate::StoreError;

/// Where a job stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its UUID.
    pub id: JobId,
    /// The batch it belongs to.
    pub batch: String,
    /// What was asked. The video has no query: signatures are never stored.
    pub spec: JobSpec,
    /// Where it stands.
    pub status: JobStatus,
    /// Number of its last claim.
    pub epoch: u32,
    /// Claims so far.
    pub attempts: u32,
    /// Deaths of the process since the last committed round.
    pub crashes: u32,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was submitted, milliseconds since 1970.
    pub created_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
}

/// The columns that [`Job::read`] wants.
pub(super) const JOB_COLUMNS: &str =
    "seq, id, batch, spec, video_uri, status, epoch, attempts, crashes, error, created_at, ended_at";

impl Job {
    pub(super) fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let id: JobId = parse_column(row, "id")?;
        Ok(Self {
            id,
            batch: column(row, "batch")?,
            spec: json_column(row, "spec", id)?,
            status: parse_column(row, "status")?,
            epoch: column(row, "epoch")?,
            attempts: column(row, "attempts")?,
            crashes: column(row, "crashes")?,
            error: column(row, "error")?,
            created_ms: column(row, "created_at")?,
            ended_ms: column(row, "ended_at")?,
        })
    }
}

/// An answer with what it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerRow {
    /// The answer.
    pub answer: Answer,
    /// Sums over its rounds.
    pub totals: Totals,
    /// The version of the video that was seen.
    pub video: TraceVideo,
    /// The target's weights.
    pub target: ModelRevision,
    /// The draft's weights.
    pub draft: Option<ModelRevision>,
    /// Epoch of the claim that answered: with the job it names the trace object.
    pub epoch: u32,
    /// When it was answered, milliseconds since 1970.
    pub answered_ms: i64,
}

/// The columns that [`AnswerRow::read`] wants.
pub(super) const ANSWER_COLUMNS: &str = "a.epoch as answer_epoch, a.answer, a.choice, a.confidence, a.evidence, a.totals, \
    a.video as seen_video, a.target, a.draft, a.answered_at";

impl AnswerRow {
    pub(super) fn read(row: &SqliteRow, id: JobId) -> Result<Self, StoreError> {
        let choice: Option<String> = column(row, "choice")?;
        let evidence: Vec<Evidence> = json_column(row, "evidence", id)?;
        let draft: Option<&str> = column(row, "draft")?;
        Ok(Self {
            answer: Answer {
                text: column(row, "answer")?,
                choice: choice.and_then(|letter| letter.chars().next()),
                confidence: column::<Option<f64>>(row, "confidence")?.unwrap_or(f64::NAN),
                evidence,
            },
            totals: json_column(row, "totals", id)?,
            video: json_column(row, "seen_video", id)?,
            target: json_column(row, "target", id)?,
            draft: draft
                .map(serde_json::from_str)
                .transpose()
                .map_err(StoreError::corrupt(format!("draft of job {id}")))?,
            epoch: column(row, "answer_epoch")?,
            answered_ms: column(row, "answered_at")?,
        })
    }
}

/// An answered job.
#[derive(Clone, Debug, PartialEq)]
pub struct AnsweredJob {
    /// The job.
    pub job: Job,
    /// Its answer.
    pub answer: AnswerRow,
}

/// A failed job.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedJob {
    /// The job, its error in it.
    pub job: Job,
    /// True where another try cannot help.
    pub permanent: bool,
}

/// Where the next page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub(super) i64);

/// Some rows in job order, and where the next ones begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// To be handed in for the next page; `None` after the last one.
    pub next: Option<Cursor>,
}

/// Jobs by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting.
    pub queued: u64,
    /// Leased.
    pub running: u64,
    /// With their answer.
    pub answered: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
}

impl Counts {
    /// All jobs.
    pub fn total(&self) -> u64 {
        self.queued + self.running + self.answered + self.failed + self.cancelled
    }
}

/// A column; a value that does not fit is a damaged ledger, not a panic.
pub(super) fn column<'r, T>(row: &'r SqliteRow, name: &str) -> Result<T, StoreError>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    row.try_get(name).map_err(|cause| StoreError::Corrupt {
        what: format!("column {name} of the ledger"),
        cause: cause.to_string(),
    })
}

/// A text column parsed as `T`.
pub(super) fn parse_column<T>(row: &SqliteRow, column: &str) -> Result<T, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    let text: &str = self::column(row, column)?;
    text.parse().map_err(|cause: T::Err| StoreError::Corrupt {
        what: format!("{column} {text:?}"),
        cause: cause.to_string(),
    })
}

/// A JSON column of job `id`.
pub(super) fn json_column<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    column: &str,
    id: JobId,
) -> Result<T, StoreError> {
    serde_json::from_str(self::column(row, column)?)
        .map_err(StoreError::corrupt(format!("{column} of job {id}")))
}
