//! What the rounds of a job rest on: the version of its video and the models. Rounds that rest on different things
//! are never mixed in one answer.

use super::{Lease, Ledger, job::column};
use crate::StoreError;

impl Ledger {
    /// Ties the job to `basis`, any text that is the same as long as what its rounds rest on is the same. Where its
    /// committed rounds rest on another one they are dropped, and that other one is returned.
    ///
    /// # Errors
    /// [`StoreError::Stale`] changes nothing; [`StoreError::Full`], [`StoreError::Database`].
    pub async fn rest_on(&self, lease: &Lease, basis: &str) -> Result<Option<String>, StoreError> {
        let fail = || StoreError::database("tie a job to its video and models");
        let mut transaction = self.writes.begin_with("begin immediate").await.map_err(fail())?;
        let row = sqlx::query(
            "select basis, (select count(*) from ledger_rounds where job_id = $1) as committed \
             from ledger_jobs where id = $1 and status = 'running' and epoch = $2",
        )
        .bind(lease.job().to_string())
        .bind(lease.epoch())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(fail())?;
        let Some(row) = row else { return Err(lease.stale()) };
        let earlier: Option<String> = column(&row, "basis")?;
        if earlier.as_deref() == Some(basis) {
            return Ok(None);
        }
        let dropped = column::<i64>(&row, "committed")? > 0;
        if dropped {
            sqlx::query("delete from ledger_rounds where job_id = $1")
                .bind(lease.job().to_string())
                .execute(&mut *transaction)
                .await
                .map_err(fail())?;
        }
        sqlx::query("update ledger_jobs set basis = $2 where id = $1")
            .bind(lease.job().to_string())
            .bind(basis)
            .execute(&mut *transaction)
            .await
            .map_err(fail())?;
        transaction.commit().await.map_err(fail())?;
        Ok(dropped.then(|| earlier.unwrap_or_default()))
    }
}
