//! What answers look like: the names are those of the SQL views, moments are texts, `null` is what is not there.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spectemp_store::{AnsweredJob, BadLine, Batch, Counts, Job};
use spectemp_types::{JobStatus, moment_text};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::schema::nouns;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobStatus)]
pub(crate) enum StatusWord {
    /// Waits for a worker.
    Queued,
    /// A worker has it.
    Running,
    /// Has its answer.
    Answered,
    /// Ended with an error.
    Failed,
    /// Cancelled by its owner.
    Cancelled,
}

impl From<JobStatus> for StatusWord {
    fn from(status: JobStatus) -> Self {
        match status {
            JobStatus::Queued => Self::Queued,
            JobStatus::Running => Self::Running,
            JobStatus::Answered => Self::Answered,
            JobStatus::Failed => Self::Failed,
            JobStatus::Cancelled => Self::Cancelled,
        }
    }
}

impl From<StatusWord> for JobStatus {
    fn from(word: StatusWord) -> Self {
        match word {
            StatusWord::Queued => Self::Queued,
            StatusWord::Running => Self::Running,
            StatusWord::Answered => Self::Answered,
            StatusWord::Failed => Self::Failed,
            StatusWord::Cancelled => Self::Cancelled,
        }
    }
}

/// One job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobView {
    /// The job's UUID, unique everywhere.
    pub(crate) job_id: Uuid,
    /// The job's own id, unique in its batch.
    pub(crate) id: String,
    /// The batch it belongs to.
    pub(crate) batch: String,
    pub(crate) status: StatusWord,
    /// The video's URI, without query.
    pub(crate) video: String,
    pub(crate) question: String,
    /// The options; empty for an open question.
    pub(crate) choices: Vec<String>,
    /// Name of the plan.
    pub(crate) plan: String,
    /// All settings in force.
    #[schema(value_type = nouns::Settings)]
    pub(crate) settings: Value,
    /// Higher ones are claimed first.
    pub(crate) priority: i32,
    /// When an answer is of no use any more.
    #[schema(format = DateTime)]
    pub(crate) deadline: Option<String>,
    /// Committed rounds.
    pub(crate) rounds: u32,
    /// How often it was begun.
    pub(crate) attempts: u32,
    /// Passing faults since the last committed round.
    pub(crate) tries: u32,
    /// Deaths of its worker since the last committed round.
    pub(crate) crashes: u32,
    /// Who has it.
    pub(crate) worker: Option<String>,
    /// Why it failed, or what went wrong in passing.
    pub(crate) error: Option<String>,
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
    #[schema(format = DateTime)]
    pub(crate) ended_at: Option<String>,
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        Self {
            job_id: job.id.as_uuid(),
            id: job.spec.id,
            batch: job.batch,
            status: job.status.into(),
            video: job.spec.video.redacted(),
            question: job.spec.question.text,
            choices: job.spec.question.choices,
            plan: job.spec.plan.name,
            settings: serde_json::to_value(&job.spec.plan.settings).unwrap_or_default(),
            priority: job.priority,
            deadline: job.deadline_ms.map(moment_text),
            rounds: job.rounds,
            attempts: job.attempts,
            tries: job.tries,
            crashes: job.crashes,
            worker: job.worker,
            error: job.error,
            created_at: moment_text(job.created_ms),
            ended_at: job.ended_ms.map(moment_text),
        }
    }
}

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobList {
    pub(crate) jobs: Vec<JobView>,
    /// `cursor` of the next page; `null` after the last one.
    pub(crate) next: Option<String>,
}

/// Which weights answered.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) revision: String,
}

/// An answer and what it rests on.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Answer)]
pub(crate) struct AnswerView {
    pub(crate) job_id: Uuid,
    pub(crate) id: String,
    pub(crate) batch: String,
    pub(crate) video: String,
    /// The version of the object that was seen.
    pub(crate) video_etag: Option<String>,
    pub(crate) question: String,
    pub(crate) choices: Vec<String>,
    pub(crate) plan: String,
    /// The answer; the option's text for multiple choice.
    pub(crate) answer: String,
    /// The option's letter.
    pub(crate) choice: Option<String>,
    /// 0 to 1.
    pub(crate) confidence: Option<f64>,
    #[schema(value_type = Vec<nouns::Evidence>)]
    pub(crate) evidence: Value,
    #[schema(value_type = nouns::Totals)]
    pub(crate) totals: Value,
    pub(crate) target: Model,
    pub(crate) draft: Option<Model>,
    #[schema(format = DateTime)]
    pub(crate) answered_at: String,
}

impl From<AnsweredJob> for AnswerView {
    fn from(AnsweredJob { job, answer: row }: AnsweredJob) -> Self {
        let model =
            |model: spectemp_types::ModelRevision| Model { name: model.name, revision: model.revision };
        let confidence = row.answer.confidence;
        Self {
            job_id: job.id.as_uuid(),
            id: job.spec.id,
            batch: job.batch,
            video: row.video.uri,
            video_etag: row.video.etag,
            question: job.spec.question.text,
            choices: job.spec.question.choices,
            plan: job.spec.plan.name,
            answer: row.answer.text,
            choice: row.answer.choice.map(String::from),
            confidence: confidence.is_finite().then_some(confidence),
            evidence: serde_json::to_value(&row.answer.evidence).unwrap_or_default(),
            totals: serde_json::to_value(row.totals).unwrap_or_default(),
            target: model(row.target),
            draft: row.draft.map(model),
            answered_at: moment_text(row.answered_ms),
        }
    }
}

/// A page of answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnswerList {
    pub(crate) answers: Vec<AnswerView>,
    /// `cursor` of the next page; `null` after the last one.
    pub(crate) next: Option<String>,
}

/// Jobs by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Counts)]
pub(crate) struct CountsView {
    pub(crate) queued: u64,
    pub(crate) running: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) total: u64,
}

impl From<Counts> for CountsView {
    fn from(counts: Counts) -> Self {
        Self {
            queued: counts.queued,
            running: counts.running,
            answered: counts.answered,
            failed: counts.failed,
            cancelled: counts.cancelled,
            total: counts.total(),
        }
    }
}

impl CountsView {
    /// True where no job waits or runs.
    pub(crate) fn is_ended(&self) -> bool {
        self.queued == 0 && self.running == 0
    }
}

/// One batch.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Batch)]
pub(crate) struct BatchView {
    /// Its name.
    pub(crate) batch: String,
    pub(crate) counts: CountsView,
    /// Lines that were no jobs.
    pub(crate) bad_lines: u64,
    /// True where all its lines are in.
    pub(crate) sealed: bool,
    /// True where all its lines are in and no job waits or runs.
    pub(crate) ended: bool,
    /// Where its results are written.
    pub(crate) results: Option<String>,
    /// Who is told when it ends.
    pub(crate) webhook: Option<String>,
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
    /// When its results were written.
    #[schema(format = DateTime)]
    pub(crate) exported_at: Option<String>,
    /// When its webhook was called.
    #[schema(format = DateTime)]
    pub(crate) told_at: Option<String>,
}

impl BatchView {
    pub(crate) fn of(batch: Batch, counts: Counts) -> Self {
        let counts = CountsView::from(counts);
        Self {
            batch: batch.name,
            bad_lines: batch.bad_lines,
            sealed: batch.sealed,
            ended: batch.sealed && counts.is_ended(),
            counts,
            results: batch.results,
            webhook: batch.webhook.map(|webhook| webhook.url),
            created_at: moment_text(batch.created_ms),
            exported_at: batch.exported_ms.map(moment_text),
            told_at: batch.told_ms.map(moment_text),
        }
    }
}

/// A page of batches.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchList {
    pub(crate) batches: Vec<BatchView>,
    /// `cursor` of the next page; `null` after the last one.
    pub(crate) next: Option<String>,
}

/// A line that is no job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = BadLine)]
pub(crate) struct BadLineView {
    /// Its number, from 1; 0 for a manifest as a whole.
    pub(crate) line: u64,
    /// What is wrong with it.
    pub(crate) error: String,
}

impl From<BadLine> for BadLineView {
    fn from(bad: BadLine) -> Self {
        Self { line: bad.line, error: bad.error }
    }
}

/// A page of bad lines.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BadLineList {
    pub(crate) lines: Vec<BadLineView>,
    /// `cursor` of the next page; `null` after the last one.
    pub(crate) next: Option<String>,
}

/// What became of a batch's lines.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Intake {
    /// The batch.
    pub(crate) batch: String,
    /// Lines that were read, blank ones left out.
    pub(crate) lines: u64,
    /// New jobs.
    pub(crate) submitted: u64,
    /// Jobs that the batch had already, with the same content.
    pub(crate) existing: u64,
    /// Lines that are no jobs of it.
    pub(crate) bad_lines: u64,
    /// The first of them; `GET …/bad-lines` lists them.
    pub(crate) errors: Vec<BadLineView>,
    /// True where every line is a job.
    pub(crate) complete: bool,
    /// The secret that the webhook's signature is made with, where the server chose it; it is not shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) webhook_secret: Option<String>,
}

/// How many jobs a request changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Changed {
    /// How many.
    pub(crate) jobs: u64,
}
