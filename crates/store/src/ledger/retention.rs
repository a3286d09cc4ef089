//! Forgetting what is past its time: jobs that ended long ago with all that belongs to them, and requests whose
//! idempotency keys nobody will send again.
//!
//! Rows go first and objects after them, so that no row ever points at nothing; a death in between leaves objects that
//! nothing points at, which the sweep of orphans frees.

use std::{collections::HashSet, time::Duration};

use spectemp_types::JobId;

use super::Ledger;
use crate::{
    LedgerKind, ObjectKey, StoreError,
    db::{Transaction, Value, query},
};

const FORGET: &str = "forget old jobs";

impl Ledger {
    /// Forgets up to `limit` jobs that ended longer than `keep` ago, with rounds, answers and idempotency keys, and gives
    /// their ids. Jobs of batches whose results are still to be written, or whose webhook is still to be called, stay.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`]: then nothing was forgotten.
    pub async fn forget_jobs(&self, keep: Duration, limit: usize) -> Result<Vec<JobId>, StoreError> {
        let mut transaction = self.writes.begin(FORGET).await?;
        let rows = query(
            FORGET,
            format!(
                "select j.id as id from ledger_jobs j where j.status in ('answered', 'failed', 'cancelled') \
                 and j.ended_at is not null and j.ended_at < {{now}} - $1 and not exists ( \
                 select 1 from ledger_batches b where b.tenant = j.tenant and b.name = j.batch \
                 and ((b.results is not null and b.exported_at is null) \
                 or (b.webhook_url is not null and b.told_at is null))) \
                 order by j.ended_at limit {limit} {{skip_locked_job}}"
            ),
        )
        .bind(milliseconds(keep))
        .all(&mut transaction)
        .await?;
        let jobs: Vec<JobId> = rows.iter().map(|row| row.id("id")).collect::<Result<_, _>>()?;
        if !jobs.is_empty() {
            delete(&mut transaction, &jobs).await?;
        }
        transaction.commit(FORGET).await?;
        Ok(jobs)
    }

    /// Forgets batches that have no job any more and were made longer than `keep` ago, with their bad lines; how many.
    ///
    /// # Errors
    /// As [`Self::forget_jobs`].
    pub async fn forget_batches(&self, keep: Duration) -> Result<u64, StoreError> {
        const WHAT: &str = "forget old batches";
        const EMPTY: &str =
            "not exists (select 1 from ledger_jobs j where j.tenant = b.tenant and j.batch = b.name)";
        let mut transaction = self.writes.begin(WHAT).await?;
        let rows = query(
            WHAT,
            format!(
                "select b.seq as seq from ledger_batches b where b.sealed and b.created_at < {{now}} - $1 and {EMPTY} \
                 and (b.results is null or b.exported_at is not null) \
                 and (b.webhook_url is null or b.told_at is not null)"
            ),
        )
        .bind(milliseconds(keep))
        .all(&mut transaction)
        .await?;
        let batches: Vec<i64> = rows.iter().map(|row| row.get("seq")).collect::<Result<_, _>>()?;
        for seq in &batches {
            // Postgres keeps counters, SQLite counts.
            let counters = (self.kind() == LedgerKind::Postgres).then_some("ledger_counts");
            for table in ["ledger_bad_lines"].into_iter().chain(counters) {
                let of = "(tenant, batch) in (select tenant, name from ledger_batches where seq = $1)";
                query(WHAT, format!("delete from {table} where {of}"))
                    .bind(*seq)
                    .execute(&mut transaction)
                    .await?;
            }
            query(WHAT, "delete from ledger_batches where seq = $1")
                .bind(*seq)
                .execute(&mut transaction)
                .await?;
        }
        transaction.commit(WHAT).await?;
        Ok(batches.len() as u64)
    }

    /// Forgets the requests with idempotency keys that came longer than `keep` ago; how many. Their jobs stay.
    ///
    /// # Errors
    /// As [`Self::forget_jobs`].
    pub async fn forget_requests(&self, keep: Duration) -> Result<u64, StoreError> {
        query("forget old idempotency keys", "delete from ledger_requests where created_at < {now} - $1")
            .bind(milliseconds(keep))
            .execute(&self.writes)
            .await
    }

    /// Those of `keys` that something in the ledger points at, or may come to point at.
    pub(crate) async fn needed(&self, keys: &[ObjectKey]) -> Result<HashSet<ObjectKey>, StoreError> {
        const WHAT: &str = "look for the owners of objects";
        let jobs: HashSet<JobId> = keys.iter().map(ObjectKey::job).collect();
        let rows = query(
            WHAT,
            "select j.id as id, j.status as status, a.trace as trace from ledger_jobs j \
             left join ledger_answers a on a.job_id = j.id where j.id in {ids_1}",
        )
        .bind(Value::json("jobs", &jobs)?)
        .all(&self.writes)
        .await?;
        let (mut traces, mut seen) = (HashSet::new(), HashSet::new());
        for row in rows {
            if row.get::<String>("status")? != "cancelled" {
                seen.insert(row.id::<JobId>("id")?);
            }
            traces.extend(row.get::<Option<String>>("trace")?);
        }
        let needed = |key: &&ObjectKey| match key {
            ObjectKey::Trace { .. } => traces.contains(&key.to_string()),
            ObjectKey::Thumbnail { job, .. } => seen.contains(job),
        };
        Ok(keys.iter().filter(needed).copied().collect())
    }
}

/// Deletes the rows of `jobs`, which the transaction has locked.
async fn delete(transaction: &mut Transaction, jobs: &[JobId]) -> Result<(), StoreError> {
    for statement in [
        "delete from ledger_answers where job_id in {ids_1}",
        "delete from ledger_rounds where job_id in {ids_1}",
        "delete from ledger_requests where job_id in {ids_1}",
        "delete from ledger_jobs where id in {ids_1}",
    ] {
        query(FORGET, statement).bind(Value::json("jobs", &jobs)?).execute(&mut *transaction).await?;
    }
    Ok(())
}

fn milliseconds(keep: Duration) -> i64 {
    i64::try_from(keep.as_millis()).unwrap_or(i64::MAX / 2)
}
