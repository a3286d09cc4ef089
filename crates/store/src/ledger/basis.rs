//! What the rounds of a job rest on: the version of its video and the models. Rounds that rest on different things
//! are never mixed in one answer.

use super::{Lease, Ledger};
use crate::{StoreError, db::query};

impl Ledger {
    /// Ties the job to `basis`, any text that is the same as long as what its rounds rest on is the same. Where its
    /// committed rounds rest on another one they are dropped, and that other one is returned.
    ///
    /// # Errors
    /// [`StoreError::Stale`] changes nothing; [`StoreError::Full`], [`StoreError::Database`].
    pub async fn rest_on(&self, lease: &Lease, basis: &str) -> Result<Option<String>, StoreError> {
        const WHAT: &str = "tie a job to its video and models";
        let mut transaction = self.writes.begin(WHAT).await?;
        let row = query(
            WHAT,
            "select j.basis, (select count(*) from ledger_rounds where job_id = $1) as committed \
             from ledger_jobs j where j.id = $1 and j.status = 'running' and j.epoch = $2 {lock_job}",
        )
        .bind(lease.job())
        .bind(lease.epoch())
        .optional(&mut transaction)
        .await?;
        let Some(row) = row else { return Err(lease.stale()) };
        let earlier: Option<String> = row.get("basis")?;
        if earlier.as_deref() == Some(basis) {
            return Ok(None);
        }
        let dropped = row.get::<i64>("committed")? > 0;
        if dropped {
            query(WHAT, "delete from ledger_rounds where job_id = $1")
                .bind(lease.job())
                .execute(&mut transaction)
                .await?;
        }
        query(WHAT, "update ledger_jobs set basis = $2 where id = $1")
            .bind(lease.job())
            .bind(basis)
            .execute(&mut transaction)
            .await?;
        transaction.commit(WHAT).await?;
        Ok(dropped.then(|| earlier.unwrap_or_default()))
    }
}
