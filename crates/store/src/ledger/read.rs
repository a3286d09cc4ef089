//! Looking up one job, its rounds and its answer.

use spectemp_types::{JobId, Round};

use super::{
    Job, LedgerReader,
    job::{ANSWER_COLUMNS, AnswerRow, job_columns},
};
use crate::{
    StoreError,
    db::{Row, query},
};

impl LedgerReader {
    /// One job.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn job(&self, id: JobId) -> Result<Job, StoreError> {
        let statement = format!("select {} from ledger_jobs j where j.id = $1", job_columns());
        let row = query("look up a job", statement).bind(id).optional(&self.reads).await?;
        row.as_ref().map(Job::read).unwrap_or_else(|| Err(StoreError::NoJob(id.to_string())))
    }

    /// The job with this UUID, or with this id of the user's (in `batch`, where given).
    ///
    /// # Errors
    /// [`StoreError::Ambiguous`] where several batches have such an id; otherwise as [`Self::job`].
    pub async fn find_job(&self, text: &str, batch: Option<&str>) -> Result<Job, StoreError> {
        let filter = batch.map_or("", |_| "and j.batch = $2");
        let statement = format!(
            "select {} from ledger_jobs j where j.user_id = $1 {filter} order by j.seq limit 20",
            job_columns()
        );
        let mut find = query("look up a job", statement).bind(text);
        if let Some(batch) = batch {
            find = find.bind(batch);
        }
        let rows = find.all(&self.reads).await?;
        match (rows.as_slice(), text.parse::<JobId>()) {
            ([], Ok(id)) => self.job(id).await,
            ([], Err(_)) => Err(StoreError::NoJob(text.to_owned())),
            ([row], _) => Job::read(row),
            (rows, _) => {
                let candidate = |row: &Row| Ok((row.id("id")?, row.get("batch")?));
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
        self.rounds_from(job, 0).await
    }

    /// The committed rounds of a job from number `first` on, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn rounds_from(&self, job: JobId, first: u32) -> Result<Vec<Round>, StoreError> {
        let statement =
            format!("select {ROUND_COLUMNS} from ledger_rounds where job_id = $1 and no >= $2 order by no");
        let rows = query("read rounds", statement).bind(job).bind(first).all(&self.reads).await?;
        rows.iter().map(|row| read_round(row).map(|(_, round)| round)).collect()
    }

    /// The answer of a job, where it has one.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn answer(&self, job: JobId) -> Result<Option<AnswerRow>, StoreError> {
        let statement = format!("select {ANSWER_COLUMNS} from ledger_answers a where job_id = $1");
        let row = query("read an answer", statement).bind(job).optional(&self.reads).await?;
        row.map(|row| AnswerRow::read(&row, job)).transpose()
    }
}

/// The columns that [`read_round`] wants.
pub(super) const ROUND_COLUMNS: &str = "job_id, no, round";

/// A round and whose it is.
pub(super) fn read_round(row: &Row) -> Result<(JobId, Round), StoreError> {
    let job: JobId = row.id("job_id")?;
    let no: i64 = row.get("no")?;
    Ok((job, row.json("round", format!("round {no} of job {job}"))?))
}
