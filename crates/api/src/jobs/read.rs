//! Looking at jobs.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use spectemp_store::{AnswerRow, AnsweredJob, Job, JobFilter, ObjectKey};
use spectemp_types::Round;
use utoipa::{IntoParams, ToSchema};

use crate::{
    auth::Reader,
    error::ApiError,
    extract::{ApiQuery, JobPath},
    page,
    problem::ProblemBody,
    schema::nouns,
    shape::{AnswerView, JobList, JobView, StatusWord},
    state::AppState,
};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only jobs of this batch.
    #[serde(default, deserialize_with = "page::filter")]
    batch: Option<String>,
    /// Only jobs that stand here.
    status: Option<StatusWord>,
    /// Only jobs about this video.
    #[serde(default, deserialize_with = "page::filter")]
    video: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Most rows [default: 100].
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// List jobs
///
/// In the order of their submission.
#[utoipa::path(
    get,
    path = "/jobs",
    tag = "jobs",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of jobs.", body = JobList),
        (status = 400, description = "A query that cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A limit or cursor that is none.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Reader(caller): Reader,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<JobList>, ApiError> {
    let filter = JobFilter {
        tenant: Some(&caller.tenant),
        batch: query.batch.as_deref(),
        status: query.status.map(Into::into),
        video: query.video.as_deref(),
    };
    let (limit, after) = (page::limit(query.limit)?, page::after(query.cursor.as_deref())?);
    let page = state.store.ledger().jobs(&filter, after, limit).await?;
    Ok(Json(JobList {
        jobs: page.rows.into_iter().map(JobView::from).collect(),
        next: page.next.map(|cursor| cursor.to_string()),
    }))
}

/// One job
#[utoipa::path(
    get,
    path = "/jobs/{job_id}",
    tag = "jobs",
    params(("job_id" = uuid::Uuid, Path, description = "The job's UUID.")),
    responses(
        (status = 200, description = "The job.", body = JobView),
        (status = 404, description = "No such job.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn one(
    State(state): State<AppState>,
    Reader(caller): Reader,
    JobPath(id): JobPath,
) -> Result<Json<JobView>, ApiError> {
    Ok(Json(super::find(&state, &caller, id).await?.into()))
}

/// The rounds of a job.
#[derive(Serialize, ToSchema)]
pub(crate) struct RoundList {
    job_id: uuid::Uuid,
    /// The committed rounds, in order.
    #[schema(value_type = Vec<nouns::Round>)]
    rounds: Vec<Round>,
}

/// The committed rounds of a job
///
/// Also of one that still runs.
#[utoipa::path(
    get,
    path = "/jobs/{job_id}/rounds",
    tag = "jobs",
    params(("job_id" = uuid::Uuid, Path, description = "The job's UUID.")),
    responses(
        (status = 200, description = "Its rounds.", body = RoundList),
        (status = 404, description = "No such job.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn rounds(
    State(state): State<AppState>,
    Reader(caller): Reader,
    JobPath(id): JobPath,
) -> Result<Json<RoundList>, ApiError> {
    super::find(&state, &caller, id).await?;
    let rounds = state.store.ledger().rounds(id).await?;
    Ok(Json(RoundList { job_id: id.as_uuid(), rounds }))
}

/// The trace of an answered job
///
/// All rounds with everything that decided them.
#[utoipa::path(
    get,
    path = "/jobs/{job_id}/trace",
    tag = "jobs",
    params(("job_id" = uuid::Uuid, Path, description = "The job's UUID.")),
    responses(
        (status = 200, description = "Its trace.", body = nouns::Trace),
        (status = 404, description = "No such job, or it has no answer.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn trace(
    State(state): State<AppState>,
    Reader(caller): Reader,
    JobPath(id): JobPath,
) -> Result<Response, ApiError> {
    let job = super::find(&state, &caller, id).await?;
    let row = answer_row(&state, &job).await?;
    let key = ObjectKey::Trace { job: id, epoch: row.epoch };
    match state.store.objects().get(&key).await? {
        Some(bytes) => Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response()),
        None => Err(ApiError::NotFound(format!("trace of job {id} any more"))),
    }
}

/// The answer of a job
#[utoipa::path(
    get,
    path = "/jobs/{job_id}/answer",
    tag = "jobs",
    params(("job_id" = uuid::Uuid, Path, description = "The job's UUID.")),
    responses(
        (status = 200, description = "Its answer.", body = AnswerView),
        (status = 404, description = "No such job, or it has no answer.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn answer(
    State(state): State<AppState>,
    Reader(caller): Reader,
    JobPath(id): JobPath,
) -> Result<Json<AnswerView>, ApiError> {
    let job = super::find(&state, &caller, id).await?;
    let answer = answer_row(&state, &job).await?;
    Ok(Json(AnsweredJob { job, answer }.into()))
}

async fn answer_row(state: &AppState, job: &Job) -> Result<AnswerRow, ApiError> {
    let row = state.store.ledger().answer(job.id).await?;
    row.ok_or_else(|| ApiError::NotFound(format!("answer of job {}: it is {}", job.id, job.status)))
}
