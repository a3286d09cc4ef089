//! Batches: many jobs under one name.

mod change;
mod create;
mod manifest;
mod read;

pub(crate) use manifest::read_all as read_manifests;
use spectemp_store::{Batch, JobFilter};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{auth::Caller, error::ApiError, shape::BatchView, state::AppState};

/// The longest name of a batch, in bytes.
const MOST_NAME_BYTES: usize = 512;

/// The routes of batches.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create::create, read::list))
        .routes(routes!(read::one))
        .routes(routes!(change::cancel))
        .routes(routes!(change::retry_failed))
        .routes(routes!(read::counts))
        .routes(routes!(read::bad_lines))
        .routes(routes!(read::answers))
        .routes(routes!(crate::events::batch))
}

/// True for what can be the name of a batch.
pub(crate) fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= MOST_NAME_BYTES && !text.chars().any(char::is_control)
}

/// Refuses what cannot be the name of a batch.
pub(crate) fn check_name(text: &str) -> Result<(), ApiError> {
    if is_name(text) {
        return Ok(());
    }
    Err(ApiError::Invalid(format!(
        "batch {text:?} is no name: use 1 to {MOST_NAME_BYTES} bytes without control characters"
    )))
}

/// The caller's batch; another tenant's does not exist. Jobs that were submitted alone have a batch without a row.
pub(crate) async fn find(state: &AppState, caller: &Caller, name: &str) -> Result<Batch, ApiError> {
    let ledger = state.store.ledger();
    if let Some(batch) = ledger.batch(&caller.tenant, name).await? {
        return Ok(batch);
    }
    let counts = ledger.counts_of(Some(&caller.tenant), Some(name)).await?;
    if counts.total() == 0 {
        return Err(ApiError::no_batch(name));
    }
    let first = JobFilter { tenant: Some(&caller.tenant), batch: Some(name), ..JobFilter::default() };
    let first = ledger.jobs(&first, None, 1).await?;
    let created_ms = first.rows.first().map_or(0, |job| job.created_ms);
    Ok(Batch { created_ms, sealed: true, ..empty(&caller.tenant, name) })
}

/// A batch without anything.
pub(crate) fn empty(tenant: &str, name: &str) -> Batch {
    Batch { tenant: tenant.to_owned(), name: name.to_owned(), ..Batch::default() }
}

/// The batch with its counts.
pub(crate) async fn view(state: &AppState, batch: Batch) -> Result<BatchView, ApiError> {
    let counts = state.store.ledger().counts_of(Some(&batch.tenant), Some(&batch.name)).await?;
    Ok(BatchView::of(batch, counts))
}
