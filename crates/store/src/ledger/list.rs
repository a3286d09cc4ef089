//! Lists of jobs, a page at a time, and how many there are.

use std::fmt::Write as _;

use spectemp_types::JobStatus;

use super::{
    AnsweredJob, Counts, Cursor, FailedJob, Job, LedgerReader, Page,
    job::{ANSWER_COLUMNS, AnswerRow, job_columns},
};
use crate::{
    LedgerKind, StoreError,
    db::{Query, Row, query},
};

/// Which jobs; what is `None` does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct JobFilter<'a> {
    /// Whose.
    pub tenant: Option<&'a str>,
    /// Of which batch.
    pub batch: Option<&'a str>,
    /// Where they stand.
    pub status: Option<JobStatus>,
    /// About which video: its URI without query and user info.
    pub video: Option<&'a str>,
}

impl<'a> JobFilter<'a> {
    /// The conditions on `ledger_jobs j` with their values, which begin at `$1`.
    fn conditions(&self) -> (String, Vec<&'a str>) {
        let mut text = String::from("true");
        let mut values = Vec::new();
        for (column, value) in [("tenant", self.tenant), ("batch", self.batch), ("video_uri", self.video)] {
            if let Some(value) = value {
                values.push(value);
                let _ = write!(text, " and j.{column} = ${}", values.len());
            }
        }
        // As a literal: a partial index is only found by one.
        if let Some(status) = self.status {
            let _ = write!(text, " and j.status = '{status}'");
        }
        (text, values)
    }
}

impl LedgerReader {
    /// Jobs in the order of their submission, `limit` at a time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn jobs(
        &self,
        filter: &JobFilter<'_>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Job>, StoreError> {
        let statement = format!("select {} from ledger_jobs j", job_columns());
        let rows = page(&statement, filter, after, limit).all(&self.reads).await?;
        page_of(&rows, limit, Job::read)
    }

    /// Answered jobs with their answers in the order of their submission, `limit` at a time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn answers_of(
        &self,
        filter: &JobFilter<'_>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<AnsweredJob>, StoreError> {
        let statement = format!(
            "select {}, {ANSWER_COLUMNS} from ledger_jobs j join ledger_answers a on a.job_id = j.id",
            job_columns()
        );
        let rows = page(&statement, filter, after, limit).all(&self.reads).await?;
        page_of(&rows, limit, |row| {
            let job = Job::read(row)?;
            let answer = AnswerRow::read(row, job.id)?;
            Ok(AnsweredJob { job, answer })
        })
    }

    /// Failed jobs in the order of their submission, `limit` at a time. The filter's status is of no account.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn failures_of(
        &self,
        filter: &JobFilter<'_>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<FailedJob>, StoreError> {
        let statement =
            format!("select {}, coalesce(j.permanent, false) as permanent from ledger_jobs j", job_columns());
        let failed = JobFilter { status: Some(JobStatus::Failed), ..*filter };
        let rows = page(&statement, &failed, after, limit).all(&self.reads).await?;
        page_of(&rows, limit, |row| Ok(FailedJob { job: Job::read(row)?, permanent: row.get("permanent")? }))
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
        self.answers_of(&JobFilter { batch: Some(batch), ..JobFilter::default() }, after, limit).await
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
        self.failures_of(&JobFilter { batch: Some(batch), ..JobFilter::default() }, after, limit).await
    }

    /// Jobs by status, of one batch or of all.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn counts(&self, batch: Option<&str>) -> Result<Counts, StoreError> {
        self.counts_of(None, batch).await
    }

    /// Jobs by status, of one tenant and one batch or of all. On Postgres a table of counters tells, so that it costs
    /// the same with ten jobs as with ten millions.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn counts_of(&self, tenant: Option<&str>, batch: Option<&str>) -> Result<Counts, StoreError> {
        let filter = JobFilter { tenant, batch, ..JobFilter::default() };
        let (conditions, values) = filter.conditions();
        let from = match self.kind() {
            LedgerKind::Sqlite => "count(*) as jobs from ledger_jobs j",
            LedgerKind::Postgres => "cast(sum(j.jobs) as bigint) as jobs from ledger_counts j",
        };
        let statement = format!("select j.status, {from} where {conditions} group by j.status");
        let mut counts = Counts::default();
        for row in bind_all(query("count jobs", statement), values).all(&self.reads).await? {
            counts.set(row.parse("status")?, row.number("jobs")?);
        }
        Ok(counts)
    }
}

fn page(select: &str, filter: &JobFilter<'_>, after: Option<Cursor>, limit: usize) -> Query {
    let (conditions, values) = filter.conditions();
    let seq = values.len() + 1;
    let statement = format!("{select} where {conditions} and j.seq > ${seq} order by j.seq limit {limit}");
    bind_all(query("list jobs", statement), values).bind(after.map_or(-1, |cursor| cursor.0))
}

fn bind_all(query: Query, values: Vec<&str>) -> Query {
    values.into_iter().fold(query, |query, value| query.bind(value))
}

/// The rows as a page; `seq` is their cursor.
pub(super) fn page_of<T>(
    rows: &[Row],
    limit: usize,
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let full = rows.len() == limit;
    let next = rows.last().filter(|_| full).map(|row| row.get("seq").map(Cursor)).transpose()?;
    Ok(Page { rows: rows.iter().map(read).collect::<Result<_, _>>()?, next })
}
