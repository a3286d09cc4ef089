//! Submitting jobs. A job is (batch, id): the same one again is no new job, other content under its id is refused.

use spectemp_types::{JobId, JobSpec, JobStatus};
use sqlx::SqliteConnection;

use super::{
    Ledger,
    job::{column, parse_column},
    now_ms,
};
use crate::StoreError;

/// What became of one submitted spec.
#[derive(Debug)]
pub enum Submission {
    /// A new job.
    New(JobId),
    /// The same job was submitted before.
    Existing {
        /// Its id.
        job: JobId,
        /// Where it stands.
        status: JobStatus,
    },
    /// The id is taken by other content; nothing was changed.
    Conflict(JobConflict),
}

/// The same id in the same batch, with other content.
#[derive(Debug, thiserror::Error)]
#[error(
    "id {id:?} is already job {job} of batch {batch} with other content: {differences}: use another id or other --results"
)]
pub struct JobConflict {
    /// The user's id.
    pub id: String,
    /// The batch.
    pub batch: String,
    /// The job that holds the id.
    pub job: JobId,
    /// What differs, both sides named.
    pub differences: String,
}

impl Ledger {
    /// Submits `specs` to `batch` in one transaction; one [`Submission`] each, in the same order.
    /// A large file may come in several calls.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Database`]: then none of them was submitted.
    pub async fn submit(&self, batch: &str, specs: &[JobSpec]) -> Result<Vec<Submission>, StoreError> {
        let fail = || StoreError::database("submit jobs");
        let mut transaction = self.writes.begin_with("begin immediate").await.map_err(fail())?;
        let mut submissions = Vec::with_capacity(specs.len());
        for spec in specs {
            submissions.push(submit_one(&mut transaction, batch, spec).await?);
        }
        transaction.commit().await.map_err(fail())?;
        Ok(submissions)
    }
}

async fn submit_one(
    connection: &mut SqliteConnection,
    batch: &str,
    spec: &JobSpec,
) -> Result<Submission, StoreError> {
    let job = JobId::new();
    let fingerprint = spec.fingerprint();
    let text = serde_json::to_string(spec).map_err(StoreError::corrupt("job"))?;
    let inserted = sqlx::query(
        "insert into ledger_jobs (id, batch, user_id, fingerprint, spec, video_uri, created_at) \
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (batch, user_id) do nothing",
    )
    .bind(job.to_string())
    .bind(batch)
    .bind(&spec.id)
    .bind(fingerprint.as_bytes().as_slice())
    .bind(text)
    .bind(spec.video.redacted())
    .bind(now_ms())
    .execute(&mut *connection)
    .await
    .map_err(StoreError::database("submit jobs"))?;
    if inserted.rows_affected() == 1 {
        return Ok(Submission::New(job));
    }

    let row = sqlx::query(
        "select id, status, fingerprint, spec from ledger_jobs where batch = $1 and user_id = $2",
    )
    .bind(batch)
    .bind(&spec.id)
    .fetch_one(&mut *connection)
    .await
    .map_err(StoreError::database("submit jobs"))?;
    let job: JobId = parse_column(&row, "id")?;
    if column::<&[u8]>(&row, "fingerprint")? == fingerprint.as_bytes() {
        return Ok(Submission::Existing { job, status: parse_column(&row, "status")? });
    }
    let earlier: JobSpec =
        serde_json::from_str(column(&row, "spec")?).map_err(StoreError::corrupt(format!("job {job}")))?;
    let differences = differences(&earlier, spec);
    Ok(Submission::Conflict(JobConflict { id: spec.id.clone(), batch: batch.to_owned(), job, differences }))
}

/// Both sides of everything that differs, in one line.
fn differences(earlier: &JobSpec, now: &JobSpec) -> String {
    let mut parts = Vec::new();
    let mut compare = |name: &str, was: String, is: String| {
        if was != is {
            parts.push(format!("{name} was {was}, is {is}"));
        }
    };
    compare("video", earlier.video.redacted(), now.video.redacted());
    compare("question", format!("{:?}", earlier.question.text), format!("{:?}", now.question.text));
    compare("choices", format!("{:?}", earlier.question.choices), format!("{:?}", now.question.choices));
    compare("plan", earlier.plan.name.clone(), now.plan.name.clone());
    if let (Ok(was), Ok(is)) =
        (serde_json::to_value(&earlier.plan.settings), serde_json::to_value(&now.plan.settings))
        && let (Some(was), Some(is)) = (was.as_object(), is.as_object())
    {
        for (name, value) in is {
            let before = was.get(name).map_or_else(|| "not set".to_owned(), ToString::to_string);
            compare(name, before, value.to_string());
        }
    }
    parts.join("; ")
}
