//! Changing all jobs of a batch.

use axum::{Json, extract::State};

use crate::{
    auth::Submitter, error::ApiError, extract::BatchPath, problem::ProblemBody, shape::Changed,
    state::AppState,
};

/// Cancel a batch
///
/// Every job of it that has not ended. Where its lines are still read from a manifest, that ends, too.
#[utoipa::path(
    post,
    path = "/batches/{batch}/cancel",
    tag = "batches",
    params(("batch" = String, Path, description = "The batch's name.")),
    responses(
        (status = 200, description = "How many jobs were cancelled.", body = Changed),
        (status = 404, description = "No such batch.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    Submitter(caller): Submitter,
    BatchPath(name): BatchPath,
) -> Result<Json<Changed>, ApiError> {
    super::find(&state, &caller, &name).await?;
    let jobs = state.store.ledger().cancel_batch(&caller.tenant, &name).await?;
    Ok(Json(Changed { jobs }))
}

/// Try the failed jobs of a batch again
///
/// Their committed rounds stay.
#[utoipa::path(
    post,
    path = "/batches/{batch}/retry-failed",
    tag = "batches",
    params(("batch" = String, Path, description = "The batch's name.")),
    responses(
        (status = 200, description = "How many jobs wait again.", body = Changed),
        (status = 404, description = "No such batch.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn retry_failed(
    State(state): State<AppState>,
    Submitter(caller): Submitter,
    BatchPath(name): BatchPath,
) -> Result<Json<Changed>, ApiError> {
    super::find(&state, &caller, &name).await?;
    let jobs = state.store.ledger().retry_failed(&caller.tenant, &name).await?;
    if jobs > 0 {
        state.ring(None);
    }
    Ok(Json(Changed { jobs }))
}
