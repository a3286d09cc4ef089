//! Changing a job: cancel, retry, priority.

use axum::{Json, extract::State};
use serde::Deserialize;
use spectemp_types::{JobId, JobStatus};
use utoipa::ToSchema;

use crate::{
    auth::{Caller, Submitter},
    error::ApiError,
    extract::{ApiJson, JobPath},
    problem::ProblemBody,
    shape::JobView,
    state::AppState,
};

/// Cancel a job
///
/// A worker that runs it lets go of it. Cancelling a cancelled job changes nothing.
#[utoipa::path(
    post,
    path = "/jobs/{job_id}/cancel",
    tag = "jobs",
    params(("job_id" = uuid::Uuid, Path, description = "The job's UUID.")),
    responses(
        (status = 200, description = "The job, cancelled.", body = JobView),
        (status = 404, description = "No such job.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The job has ended already.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    Submitter(caller): Submitter,
    JobPath(id): JobPath,
) -> Result<Json<JobView>, ApiError> {
    cancelled(&state, &caller, id).await
}

/// Cancel a job
///
/// As `POST …/cancel`: the job's row stays.
#[utoipa::path(
    delete,
    path = "/jobs/{job_id}",
    tag = "jobs",
    params(("job_id" = uuid::Uuid, Path, description = "The job's UUID.")),
    responses(
        (status = 200, description = "The job, cancelled.", body = JobView),
        (status = 404, description = "No such job.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The job has ended already.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Submitter(caller): Submitter,
    JobPath(id): JobPath,
) -> Result<Json<JobView>, ApiError> {
    cancelled(&state, &caller, id).await
}

async fn cancelled(state: &AppState, caller: &Caller, id: JobId) -> Result<Json<JobView>, ApiError> {
    super::find(state, caller, id).await?;
    match state.store.ledger().cancel(id).await? {
        JobStatus::Cancelled => Ok(Json(super::find(state, caller, id).await?.into())),
        status => Err(ApiError::Conflict(format!(
            "job {id} is {status}: only a job that has not ended is cancelled"
        ))),
    }
}

/// Try a job again
///
/// A failed or cancelled job waits again; its committed rounds stay.
#[utoipa::path(
    post,
    path = "/jobs/{job_id}/retry",
    tag = "jobs",
    params(("job_id" = uuid::Uuid, Path, description = "The job's UUID.")),
    responses(
        (status = 200, description = "The job, queued.", body = JobView),
        (status = 404, description = "No such job.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The job has not failed.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn retry(
    State(state): State<AppState>,
    Submitter(caller): Submitter,
    JobPath(id): JobPath,
) -> Result<Json<JobView>, ApiError> {
    let job = super::find(&state, &caller, id).await?;
    if !matches!(job.status, JobStatus::Failed | JobStatus::Cancelled) {
        let status = job.status;
        return Err(ApiError::Conflict(format!(
            "job {id} is {status}: only a failed or cancelled one is tried again"
        )));
    }
    state.store.ledger().retry(id).await?;
    state.ring(Some(id));
    Ok(Json(super::find(&state, &caller, id).await?.into()))
}

/// What of a job can be changed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobPatch {
    /// Higher ones are claimed first.
    priority: i32,
}

/// Change a job's priority
#[utoipa::path(
    patch,
    path = "/jobs/{job_id}",
    tag = "jobs",
    params(("job_id" = uuid::Uuid, Path, description = "The job's UUID.")),
    request_body = JobPatch,
    responses(
        (status = 200, description = "The job, changed.", body = JobView),
        (status = 400, description = "Not JSON.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such job.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The job has ended.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not application/json.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Not a priority.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn patch(
    State(state): State<AppState>,
    Submitter(caller): Submitter,
    JobPath(id): JobPath,
    ApiJson(patch): ApiJson<JobPatch>,
) -> Result<Json<JobView>, ApiError> {
    let job = super::find(&state, &caller, id).await?;
    if !matches!(job.status, JobStatus::Queued | JobStatus::Running) {
        let status = job.status;
        return Err(ApiError::Conflict(format!(
            "job {id} is {status}: its priority decides nothing any more"
        )));
    }
    state.store.ledger().set_priority(id, patch.priority).await?;
    Ok(Json(super::find(&state, &caller, id).await?.into()))
}
