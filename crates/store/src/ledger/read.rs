//! Reading the ledger, and the few changes that need no lease: retry and cancel.

use spectemp_types::{JobId, JobStatus, Round};
use sqlx::{AssertSqlSafe, SqliteConnection, sqlite::SqliteRow};

use super::{
    AnsweredJob, Counts, Cursor, FailedJob, Job, Ledger, LedgerReader, Page,
    job::{ANSWER_COLUMNS, AnswerRow, JOB_COLUMNS, column, parse_column},
    now_ms,
};
use crate::{ObjectKey, StoreError};

impl LedgerReader {
    /// Jobs by status, of one batch or of all.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn counts(&self, batch: Option<&str>) -> Result<Counts, StoreError> {
        let rows = sqlx::query(
            "select status, count(*) as jobs from ledger_jobs where $1 is null or batch = $1 group by status",
        )
        .bind(batch)
        .fetch_all(&self.reads)
        .await
        .map_err(StoreError::database("count jobs"))?;
        let mut counts = Counts::default();
        for row in rows {
            let jobs = column::<i64>(&row, "jobs")? as u64;
            match parse_column(&row, "status")? {
                JobStatus::Queued => counts.queued = jobs,
                JobStatus::Running => counts.running = jobs,
                JobStatus::Answered => counts.answered = jobs,
                JobStatus::Failed => counts.failed = jobs,
                JobStatus::Cancelled => counts.cancelled = jobs,
            }
        }
        Ok(counts)
    }

    /// One job.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn job(&self, id: JobId) -> Result<Job, StoreError> {
        let statement = format!("select {JOB_COLUMNS} from ledger_jobs where id = $1");
        let row = sqlx::query(AssertSqlSafe(statement))
            .bind(id.to_string())
            .fetch_optional(&self.reads)
            .await
            .map_err(StoreError::database("look up a job"))?;
        row.as_ref().map(Job::read).unwrap_or_else(|| Err(StoreError::NoJob(id.to_string())))
    }

    /// The job with this UUID, or with this id of the user's (in `batch`, where given).
    ///
    /// # Errors
    /// [`StoreError::Ambiguous`] where several batches have such an id; otherwise as [`Self::job`].
    pub async fn find_job(&self, text: &str, batch: Option<&str>) -> Result<Job, StoreError> {
        let statement = format!(
            "select {JOB_COLUMNS} from ledger_jobs where user_id = $1 and ($2 is null or batch = $2) order by seq limit 20"
        );
        let rows = sqlx::query(AssertSqlSafe(statement))
            .bind(text)
            .bind(batch)
            .fetch_all(&self.reads)
            .await
            .map_err(StoreError::database("look up a job"))?;
        match (rows.as_slice(), text.parse::<JobId>()) {
            ([], Ok(id)) => self.job(id).await,
            ([], Err(_)) => Err(StoreError::NoJob(text.to_owned())),
            ([row], _) => Job::read(row),
            (rows, _) => {
                let candidate = |row: &SqliteRow| Ok((parse_column(row, "id")?, column(row, "batch")?));
                let candidates = rows.iter().map(candidate).collect::<Result<_, StoreError>>()?;
                Err(StoreError::Ambiguous { id: text.to_owned(), candidates })
            }
        }
    }

    /// The committed rounds of a job, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn rounds(&self, job: JobId) -> Result<Vec<Round>, StoreError> {
        let mut connection = self.reads.acquire().await.map_err(StoreError::database("read rounds"))?;
        rounds_of(&mut connection, job).await
    }

    /// The answer of a job, where it has one.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn answer(&self, job: JobId) -> Result<Option<AnswerRow>, StoreError> {
        let statement = format!("select {ANSWER_COLUMNS} from ledger_answers a where job_id = $1");
        let row = sqlx::query(AssertSqlSafe(statement))
            .bind(job.to_string())
            .fetch_optional(&self.reads)
            .await
            .map_err(StoreError::database("read an answer"))?;
        row.map(|row| AnswerRow::read(&row, job)).transpose()
    }

    /// Answered jobs of a batch in job order, `limit` at a time.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn answers(
        &self,
        batch: &str,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<AnsweredJob>, StoreError> {
        let statement = format!(
            "select {}, {ANSWER_COLUMNS} from ledger_jobs j join ledger_answers a on a.job_id = j.id \
             where j.batch = $1 and j.status = 'answered' and j.seq > $2 order by j.seq limit $3",
            job_columns_of_j()
        );
        let rows = self.page_rows(statement, batch, after, limit).await?;
        page_of(&rows, limit, |row| {
            let job = Job::read(row)?;
            let answer = AnswerRow::read(row, job.id)?;
            Ok(AnsweredJob { job, answer })
        })
    }

    /// Failed jobs of a batch in job order, `limit` at a time.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn failures(
        &self,
        batch: &str,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<FailedJob>, StoreError> {
        let statement = format!(
            "select {}, coalesce(j.permanent, 0) as permanent from ledger_jobs j \
             where j.batch = $1 and j.status = 'failed' and j.seq > $2 order by j.seq limit $3",
            job_columns_of_j()
        );
        let rows = self.page_rows(statement, batch, after, limit).await?;
        page_of(&rows, limit, |row| {
            Ok(FailedJob { job: Job::read(row)?, permanent: column(row, "permanent")? })
        })
    }

    async fn page_rows(
        &self,
        statement: String,
        batch: &str,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Vec<SqliteRow>, StoreError> {
        sqlx::query(AssertSqlSafe(statement))
            .bind(batch)
            .bind(after.map_or(-1, |cursor| cursor.0))
            .bind(limit as i64)
            .fetch_all(&self.reads)
            .await
            .map_err(StoreError::database("read results"))
    }
}

impl LedgerReader {
    /// True where an answer, or a job that may still go on, has use for the object.
    pub(crate) async fn needs(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let statement = match key {
            ObjectKey::Trace { .. } => {
                "select exists (select 1 from ledger_answers where job_id = $1 and trace = $2)"
            }
            ObjectKey::Thumbnail { .. } => {
                "select exists (select 1 from ledger_jobs where id = $1 and status <> 'cancelled')"
            }
        };
        sqlx::query_scalar(statement)
            .bind(key.job().to_string())
            .bind(key.to_string())
            .fetch_one(&self.reads)
            .await
            .map_err(StoreError::database("look for an object's owner"))
    }
}

impl Ledger {
    /// Puts the failed jobs of a batch back into the queue, committed rounds kept; how many.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Database`].
    pub async fn retry_failed(&self, batch: &str) -> Result<u64, StoreError> {
        let retried = sqlx::query(
            "update ledger_jobs set status = 'queued', error = null, permanent = null, crashes = 0, ended_at = null \
             where batch = $1 and status = 'failed'",
        )
        .bind(batch)
        .execute(&self.writes)
        .await
        .map_err(StoreError::database("retry failed jobs"))?;
        Ok(retried.rows_affected())
    }

    /// Cancels a job that has not ended; a worker that runs it finds its lease stale. Returns its status now.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], [`StoreError::Full`], [`StoreError::Database`].
    pub async fn cancel(&self, id: JobId) -> Result<JobStatus, StoreError> {
        sqlx::query(
            "update ledger_jobs set status = 'cancelled', epoch = epoch + 1, lease_holder = null, ended_at = $2 \
             where id = $1 and status in ('queued', 'running')",
        )
        .bind(id.to_string())
        .bind(now_ms())
        .execute(&self.writes)
        .await
        .map_err(StoreError::database("cancel a job"))?;
        Ok(self.job(id).await?.status)
    }
}

/// The committed rounds of `job`, in order.
pub(super) async fn rounds_of(
    connection: &mut SqliteConnection,
    job: JobId,
) -> Result<Vec<Round>, StoreError> {
    let rows = sqlx::query("select no, round from ledger_rounds where job_id = $1 order by no")
        .bind(job.to_string())
        .fetch_all(connection)
        .await
        .map_err(StoreError::database("read rounds"))?;
    let read = |row: &SqliteRow| {
        let what = format!("round {} of job {job}", column::<i64>(row, "no")?);
        serde_json::from_str(column(row, "round")?).map_err(StoreError::corrupt(what))
    };
    rows.iter().map(read).collect()
}

fn page_of<T>(
    rows: &[SqliteRow],
    limit: usize,
    read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let full = rows.len() == limit;
    let next = rows.last().filter(|_| full).map(|row| column(row, "seq").map(Cursor)).transpose()?;
    Ok(Page { rows: rows.iter().map(read).collect::<Result<_, _>>()?, next })
}

/// [`JOB_COLUMNS`], qualified for a join.
fn job_columns_of_j() -> String {
    JOB_COLUMNS.split(", ").map(|column| format!("j.{column}")).collect::<Vec<_>>().join(", ")
}
