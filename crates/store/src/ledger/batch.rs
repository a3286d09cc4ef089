//! Batches: what is to happen when all jobs of one have ended, and the lines that became no job.

use std::time::Duration;

use super::{Cursor, Ledger, LedgerReader, Page, list::page_of};
use crate::{
    BadLine, StoreError,
    db::{Query, Row, Value, query},
};

/// How long a batch that [`Ledger::batches_to_tell`] gave out stays with its taker.
const TAKEN_FOR: Duration = Duration::from_secs(60);
const COLUMNS: &str = "seq, tenant, name, created_at, bad_lines, sealed, results, webhook_url, webhook_secret, \
    exported_at, told_at, tries, error";

/// Where to say that a batch has ended.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Receives a POST.
    pub url: String,
    /// Key of the signature.
    pub secret: String,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A batch as a whole. Jobs may belong to a batch that was never put down like this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Whose.
    pub tenant: String,
    /// Its name, unique for its tenant.
    pub name: String,
    /// When it was put down first; the ledger sets it.
    pub created_ms: i64,
    /// Lines that became no job.
    pub bad_lines: u64,
    /// True once all its jobs are in.
    pub sealed: bool,
    /// URI prefix that its results are to be written to.
    pub results: Option<String>,
    /// Who is to be told when its jobs have ended.
    pub webhook: Option<Webhook>,
    /// When its results were written.
    pub exported_ms: Option<i64>,
    /// When the webhook took the message.
    pub told_ms: Option<i64>,
    /// Attempts at export or webhook that failed, since the last success.
    pub tries: u32,
    /// Why the last one failed.
    pub error: Option<String>,
}

impl Batch {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let url: Option<String> = row.get("webhook_url")?;
        let secret: Option<String> = row.get("webhook_secret")?;
        Ok(Self {
            tenant: row.get("tenant")?,
            name: row.get("name")?,
            created_ms: row.get("created_at")?,
            bad_lines: row.number("bad_lines")?,
            sealed: row.get("sealed")?,
            results: row.get("results")?,
            webhook: url.map(|url| Webhook { url, secret: secret.unwrap_or_default() }),
            exported_ms: row.get("exported_at")?,
            told_ms: row.get("told_at")?,
            tries: row.number("tries")?,
            error: row.get("error")?,
        })
    }
}

impl Ledger {
    /// Puts a batch down, in place of what was said of it before.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn put_batch(&self, batch: &Batch) -> Result<(), StoreError> {
        put(batch).execute(&self.writes).await.map(drop)
    }

    /// Keeps lines of a batch that became no job; one that is there already stays.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn put_bad_lines(
        &self,
        tenant: &str,
        batch: &str,
        lines: &[BadLine],
    ) -> Result<(), StoreError> {
        if lines.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> =
            lines.iter().map(|bad| serde_json::json!({"line": bad.line, "error": bad.error})).collect();
        query(
            "keep bad lines",
            "insert into ledger_bad_lines (tenant, batch, line, error) \
             select $2, $3, cast(e.value ->> 'line' as bigint), e.value ->> 'error' from {rows_1} where true \
             on conflict (tenant, batch, line) do nothing",
        )
        .bind(Value::json("lines", &rows)?)
        .bind(tenant)
        .bind(batch)
        .execute(&self.writes)
        .await
        .map(drop)
    }

    /// Batches whose jobs have all ended and whose results or webhook are due, oldest first. They stay with the caller
    /// for a minute, or until it says how it went: [`Self::mark_exported`], [`Self::mark_told`], [`Self::put_off`].
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn batches_to_tell(&self, limit: usize) -> Result<Vec<Batch>, StoreError> {
        let rows = query(
            "look for batches that have ended",
            format!(
                "update ledger_batches set next_at = {{now}} + $1 where seq in (select b.seq from ledger_batches b \
                 where b.sealed = true and b.next_at <= {{now}} \
                 and ((b.results is not null and b.exported_at is null) or (b.webhook_url is not null and b.told_at is null)) \
                 and not exists (select 1 from ledger_jobs j where j.tenant = b.tenant and j.batch = b.name \
                 and j.status in ('queued', 'running')) order by b.seq limit {limit} {{skip_locked}}) returning {COLUMNS}"
            ),
        )
        .bind(TAKEN_FOR.as_millis() as i64)
        .all(&self.writes)
        .await?;
        let mut batches: Vec<(i64, Batch)> = rows
            .iter()
            .map(|row| Ok((row.get("seq")?, Batch::read(row)?)))
            .collect::<Result<_, StoreError>>()?;
        batches.sort_by_key(|(seq, _)| *seq);
        Ok(batches.into_iter().map(|(_, batch)| batch).collect())
    }

    /// The batch's results are written.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn mark_exported(&self, tenant: &str, batch: &str) -> Result<(), StoreError> {
        self.mark(tenant, batch, "exported_at = {now}, tries = 0, error = null, next_at = {now}").await
    }

    /// The batch's webhook took the message.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn mark_told(&self, tenant: &str, batch: &str) -> Result<(), StoreError> {
        self.mark(tenant, batch, "told_at = {now}, tries = 0, error = null, next_at = {now}").await
    }

    /// Export or webhook failed: the batch comes again after a while. [`Batch::tries`] counts.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn put_off(
        &self,
        tenant: &str,
        batch: &str,
        error: &str,
        after: Duration,
    ) -> Result<(), StoreError> {
        query(
            "put a batch off",
            "update ledger_batches set tries = tries + 1, error = $3, next_at = {now} + $4 where tenant = $1 and name = $2",
        )
        .bind(tenant)
        .bind(batch)
        .bind(error)
        .bind(after.as_millis() as i64)
        .execute(&self.writes)
        .await
        .map(drop)
    }

    async fn mark(&self, tenant: &str, batch: &str, set: &str) -> Result<(), StoreError> {
        query("mark a batch", format!("update ledger_batches set {set} where tenant = $1 and name = $2"))
            .bind(tenant)
            .bind(batch)
            .execute(&self.writes)
            .await
            .map(drop)
    }
}

/// The statement that puts a batch down.
pub(super) fn put(batch: &Batch) -> Query {
    query(
        "put a batch down",
        "insert into ledger_batches (tenant, name, bad_lines, sealed, results, webhook_url, webhook_secret, \
         exported_at, told_at, tries, error, created_at, next_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, {now}, {now}) \
         on conflict (tenant, name) do update set bad_lines = excluded.bad_lines, sealed = excluded.sealed, \
         results = excluded.results, webhook_url = excluded.webhook_url, webhook_secret = excluded.webhook_secret, \
         exported_at = excluded.exported_at, told_at = excluded.told_at, tries = excluded.tries, \
         error = excluded.error, next_at = excluded.next_at",
    )
    .bind(&batch.tenant)
    .bind(&batch.name)
    .bind(batch.bad_lines)
    .bind(batch.sealed)
    .bind(batch.results.as_deref())
    .bind(batch.webhook.as_ref().map(|webhook| webhook.url.as_str()))
    .bind(batch.webhook.as_ref().map(|webhook| webhook.secret.as_str()))
    .bind(batch.exported_ms)
    .bind(batch.told_ms)
    .bind(batch.tries)
    .bind(batch.error.as_deref())
}

impl LedgerReader {
    /// A batch that was put down.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn batch(&self, tenant: &str, name: &str) -> Result<Option<Batch>, StoreError> {
        let statement = format!("select {COLUMNS} from ledger_batches where tenant = $1 and name = $2");
        let row = query("look up a batch", statement).bind(tenant).bind(name).optional(&self.reads).await?;
        row.as_ref().map(Batch::read).transpose()
    }

    /// Batches that were put down, in that order, `limit` at a time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn batches(
        &self,
        tenant: &str,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Batch>, StoreError> {
        let statement = format!(
            "select {COLUMNS} from ledger_batches where tenant = $1 and seq > $2 order by seq limit {limit}"
        );
        let rows = query("list batches", statement)
            .bind(tenant)
            .bind(after.map_or(-1, |cursor| cursor.0))
            .all(&self.reads)
            .await?;
        page_of(&rows, limit, Batch::read)
    }

    /// Lines of a batch that became no job, in order, `limit` at a time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn bad_lines(
        &self,
        tenant: &str,
        batch: &str,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<BadLine>, StoreError> {
        let statement = format!(
            "select line as seq, line, error from ledger_bad_lines \
             where tenant = $1 and batch = $2 and line > $3 order by line limit {limit}"
        );
        let rows = query("list bad lines", statement)
            .bind(tenant)
            .bind(batch)
            .bind(after.map_or(-1, |cursor| cursor.0))
            .all(&self.reads)
            .await?;
        page_of(&rows, limit, |row| Ok(BadLine { line: row.number("line")?, error: row.get("error")? }))
    }
}
