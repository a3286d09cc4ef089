//! Jobs and answers as they are read back.

use std::{fmt, num::ParseIntError, str::FromStr};

use spectemp_types::{Answer, Evidence, JobId, JobSpec, JobStatus, ModelRevision, Totals, TraceVideo};

use crate::{StoreError, db::Row};

/// Where a job stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its UUID.
    pub id: JobId,
    /// Whose it is.
    pub tenant: String,
    /// The batch it belongs to.
    pub batch: String,
    /// What was asked. The video has no query: signatures are never stored.
    pub spec: JobSpec,
    /// Where it stands.
    pub status: JobStatus,
    /// Higher ones are claimed first.
    pub priority: i32,
    /// When it fails if it has not ended, milliseconds since 1970.
    pub deadline_ms: Option<i64>,
    /// Number of its last claim.
    pub epoch: u32,
    /// Claims so far.
    pub attempts: u32,
    /// Deaths of the process since the last committed round.
    pub crashes: u32,
    /// Passing faults in a row since the last committed round.
    pub tries: u32,
    /// Committed rounds.
    pub rounds: u32,
    /// Who runs it.
    pub worker: Option<String>,
    /// Why it failed, or what the last passing fault was.
    pub error: Option<String>,
    /// When it was submitted, milliseconds since 1970.
    pub created_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
}

/// True where the job committed a round since its last claim. A count, not `exists`: for a long list Postgres would
/// turn that into one scan of all rounds, even if it reads only the first page.
pub(super) const PROGRESSED: &str =
    "((select count(*) from ledger_rounds r where r.job_id = j.id and r.epoch = j.epoch) > 0)";

/// The columns that [`Job::read`] wants, of `ledger_jobs j`.
pub(super) fn job_columns() -> String {
    format!(
        "j.seq, j.id, j.tenant, j.batch, j.spec, j.video_uri, j.status, j.priority, j.deadline_at, j.epoch, j.attempts, \
         j.crashes, case when j.status = 'running' and {PROGRESSED} then 0 else j.tries end as tries, \
         (select count(*) from ledger_rounds r where r.job_id = j.id) as rounds, j.lease_holder, j.error, \
         j.created_at, j.ended_at"
    )
}

impl Job {
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let id: JobId = row.id("id")?;
        Ok(Self {
            id,
            tenant: row.get("tenant")?,
            batch: row.get("batch")?,
            spec: row.json("spec", format!("job {id}"))?,
            status: row.parse("status")?,
            priority: row.number("priority")?,
            deadline_ms: row.get("deadline_at")?,
            epoch: row.number("epoch")?,
            attempts: row.number("attempts")?,
            crashes: row.number("crashes")?,
            tries: row.number("tries")?,
            rounds: row.number("rounds")?,
            worker: row.get("lease_holder")?,
            error: row.get("error")?,
            created_ms: row.get("created_at")?,
            ended_ms: row.get("ended_at")?,
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
    pub(super) fn read(row: &Row, id: JobId) -> Result<Self, StoreError> {
        let owner = format!("job {id}");
        let choice: Option<String> = row.get("choice")?;
        let evidence: Vec<Evidence> = row.json("evidence", &owner)?;
        Ok(Self {
            answer: Answer {
                text: row.get("answer")?,
                choice: choice.and_then(|letter| letter.chars().next()),
                confidence: row.get::<Option<f64>>("confidence")?.unwrap_or(f64::NAN),
                evidence,
            },
            totals: row.json("totals", &owner)?,
            video: row.json("seen_video", &owner)?,
            target: row.json("target", &owner)?,
            draft: row.optional_json("draft", &owner)?,
            epoch: row.number("answer_epoch")?,
            answered_ms: row.get("answered_at")?,
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

/// The text of a cursor, for a caller that hands it out.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

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
    pub(super) fn set(&mut self, status: JobStatus, jobs: u64) {
        match status {
            JobStatus::Queued => self.queued = jobs,
            JobStatus::Running => self.running = jobs,
            JobStatus::Answered => self.answered = jobs,
            JobStatus::Failed => self.failed = jobs,
            JobStatus::Cancelled => self.cancelled = jobs,
        }
    }

    /// All jobs.
    pub fn total(&self) -> u64 {
        self.queued + self.running + self.answered + self.failed + self.cancelled
    }
}
