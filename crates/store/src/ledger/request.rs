//! Requests that carry an idempotency key: which job each has made, so that sending it again makes no second one.

use spectemp_types::JobId;

use super::Ledger;
use crate::{
    StoreError,
    db::{Row, query},
};

/// What a request with an idempotency key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRequest {
    /// A hash of what was asked.
    pub request: Vec<u8>,
    /// The job that it made.
    pub job: JobId,
}

impl KeptRequest {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self { request: row.get("request")?, job: row.id("job_id")? })
    }
}

impl Ledger {
    /// What the request with the idempotency key `key` came to, if there was one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn request(&self, tenant: &str, key: &str) -> Result<Option<KeptRequest>, StoreError> {
        let row = query(
            "look up an idempotency key",
            "select request, job_id from ledger_requests where tenant = $1 and key = $2",
        )
        .bind(tenant)
        .bind(key)
        .optional(&self.writes)
        .await?;
        row.as_ref().map(KeptRequest::read).transpose()
    }

    /// Keeps which job the request with `key` has made; where another request was faster with the same key, that one
    /// stays and is given back.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn put_request(
        &self,
        tenant: &str,
        key: &str,
        request: &[u8],
        job: JobId,
    ) -> Result<KeptRequest, StoreError> {
        query(
            "keep an idempotency key",
            "insert into ledger_requests (tenant, key, request, job_id, created_at) values ($1, $2, $3, $4, {now}) \
             on conflict (tenant, key) do nothing",
        )
        .bind(tenant)
        .bind(key)
        .bind(request)
        .bind(job)
        .execute(&self.writes)
        .await?;
        let kept = self.request(tenant, key).await?;
        Ok(kept.unwrap_or_else(|| KeptRequest { request: request.to_vec(), job }))
    }
}
