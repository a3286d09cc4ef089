//! Submitting jobs. A job is (tenant, batch, id): the same one again is no new job, other content under its id is
//! refused.

use std::collections::{HashMap, HashSet};

use spectemp_types::{Fingerprint, JobId, JobSpec, JobStatus};

use super::{DEFAULT_TENANT, Ledger};
use crate::{
    LedgerKind, StoreError,
    db::{On, Pool, Row, Transaction, Value, query},
};

/// Jobs of one statement.
const CHUNK: usize = 2000;
pub(super) const WHAT: &str = "submit jobs";

/// A job to submit.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// What is asked.
    pub spec: JobSpec,
    /// Higher ones are claimed first; 0 is usual.
    pub priority: i32,
    /// When it fails if it has not ended, milliseconds since 1970.
    pub deadline_ms: Option<i64>,
}

impl From<JobSpec> for NewJob {
    fn from(spec: JobSpec) -> Self {
        Self { spec, priority: 0, deadline_ms: None }
    }
}

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
    /// Submits `specs` to `batch` of the default tenant, with the usual priority. As [`Self::submit_jobs`].
    ///
    /// # Errors
    /// As [`Self::submit_jobs`].
    pub async fn submit(&self, batch: &str, specs: &[JobSpec]) -> Result<Vec<Submission>, StoreError> {
        let jobs: Vec<NewJob> = specs.iter().cloned().map(NewJob::from).collect();
        self.submit_jobs(DEFAULT_TENANT, batch, &jobs).await
    }

    /// Submits `jobs` to `batch` in one transaction; one [`Submission`] each, in the same order. A large file may come
    /// in several calls; some hundreds of jobs per call are fast, each call costs a sync to the disk.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`]: then none of them was submitted
    /// (or, if the connection broke in the last moment, all: submitting them again is harmless).
    pub async fn submit_jobs(
        &self,
        tenant: &str,
        batch: &str,
        jobs: &[NewJob],
    ) -> Result<Vec<Submission>, StoreError> {
        if jobs.len() <= 1 {
            // One statement is a transaction of its own.
            return submit_chunk(&mut Where::Pool(&self.writes), Place { tenant, batch }, jobs).await;
        }
        let mut transaction = self.writes.begin(WHAT).await?;
        let submissions = self.submit_within(&mut transaction, tenant, batch, jobs).await?;
        transaction.commit(WHAT).await?;
        Ok(submissions)
    }

    /// Submits `jobs` as part of a transaction.
    pub(super) async fn submit_within(
        &self,
        transaction: &mut Transaction,
        tenant: &str,
        batch: &str,
        jobs: &[NewJob],
    ) -> Result<Vec<Submission>, StoreError> {
        if self.kind() == LedgerKind::Postgres {
            // Two callers with the same jobs in another order would wait for each other's rows.
            query(WHAT, "select pg_advisory_xact_lock(hashtextextended($1, hashtextextended($2, 1)))")
                .bind(tenant)
                .bind(batch)
                .execute(&mut *transaction)
                .await?;
        }
        let mut submissions = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(CHUNK) {
            let place = Place { tenant, batch };
            submissions.extend(submit_chunk(&mut Where::Transaction(transaction), place, chunk).await?);
        }
        Ok(submissions)
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    tenant: &'a str,
    batch: &'a str,
}

enum Where<'a> {
    Pool(&'a Pool),
    Transaction(&'a mut Transaction),
}

impl Where<'_> {
    fn on(&mut self) -> On<'_> {
        match self {
            Self::Pool(pool) => On::Pool(pool),
            Self::Transaction(transaction) => On::Transaction(transaction),
        }
    }
}

/// A job on its way into the table.
struct Incoming<'a> {
    id: JobId,
    spec: &'a JobSpec,
    fingerprint: Fingerprint,
}

async fn submit_chunk(
    place: &mut Where<'_>,
    Place { tenant, batch }: Place<'_>,
    jobs: &[NewJob],
) -> Result<Vec<Submission>, StoreError> {
    let incoming: Vec<Incoming<'_>> = jobs
        .iter()
        .map(|job| Incoming { id: JobId::new(), spec: &job.spec, fingerprint: job.spec.fingerprint() })
        .collect();
    let rows: Vec<_> = incoming.iter().zip(jobs).map(|(incoming, job)| as_row(incoming, job)).collect();
    let inserted = query(
        WHAT,
        "insert into ledger_jobs \
         (id, tenant, batch, user_id, fingerprint, spec, video_uri, priority, deadline_at, ready_at, created_at) \
         select (e.value ->> 'id'){as_uuid}, $2, $3, e.value ->> 'user_id', {unhex}e.value ->> 'fingerprint'{unhex_end}, \
         (e.value ->> 'spec'){as_jsonb}, e.value ->> 'video', cast(e.value ->> 'priority' as bigint), \
         cast(e.value ->> 'deadline' as bigint), {now}, {now} from {rows_1} where true order by e.key \
         on conflict (user_id, batch, tenant) do nothing returning id",
    )
    .bind(Value::json("jobs", &rows)?)
    .bind(tenant)
    .bind(batch)
    .all(place.on())
    .await?;
    let new: HashSet<JobId> = inserted.iter().map(|row| row.id("id")).collect::<Result<_, _>>()?;
    let taken: Vec<&str> =
        incoming.iter().filter(|job| !new.contains(&job.id)).map(|job| job.spec.id.as_str()).collect();
    let mut earlier = HashMap::new();
    if !taken.is_empty() {
        let rows = query(
            WHAT,
            "select id, user_id, status, fingerprint, spec from ledger_jobs \
             where tenant = $2 and batch = $3 and user_id in {texts_1}",
        )
        .bind(Value::json("ids", &taken)?)
        .bind(tenant)
        .bind(batch)
        .all(place.on())
        .await?;
        for row in rows {
            earlier.insert(row.get::<String>("user_id")?, row);
        }
    }
    let outcome = |job: &Incoming<'_>| match earlier.get(&job.spec.id) {
        _ if new.contains(&job.id) => Ok(Submission::New(job.id)),
        Some(row) => compare(job, batch, row),
        None => Err(StoreError::Database { what: WHAT, cause: format!("job {:?} is nowhere", job.spec.id) }),
    };
    incoming.iter().map(outcome).collect()
}

fn as_row(incoming: &Incoming<'_>, job: &NewJob) -> serde_json::Value {
    serde_json::json!({
        "id": incoming.id,
        "user_id": job.spec.id,
        "fingerprint": incoming.fingerprint.to_string(),
        "spec": job.spec,
        "video": job.spec.video.redacted(),
        "priority": job.priority,
        "deadline": job.deadline_ms,
    })
}

/// A job whose id is taken: the same one, or another one?
fn compare(incoming: &Incoming<'_>, batch: &str, row: &Row) -> Result<Submission, StoreError> {
    let job: JobId = row.id("id")?;
    if row.get::<Vec<u8>>("fingerprint")? == incoming.fingerprint.as_bytes() {
        return Ok(Submission::Existing { job, status: row.parse("status")? });
    }
    let earlier: JobSpec = row.json("spec", format!("job {job}"))?;
    let differences = differences(&earlier, incoming.spec);
    Ok(Submission::Conflict(JobConflict {
        id: incoming.spec.id.clone(),
        batch: batch.to_owned(),
        job,
        differences,
    }))
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
