//! Looking at batches.

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use spectemp_store::JobFilter;
use spectemp_types::JobStatus;
use utoipa::IntoParams;

use crate::{
    answers::{self, Form},
    auth::Reader,
    error::ApiError,
    extract::{ApiQuery, BatchPath},
    page,
    problem::ProblemBody,
    shape::{AnswerList, BadLineList, BadLineView, BatchList, BatchView, CountsView},
    state::AppState,
};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// `next` of the page before.
    cursor: Option<String>,
    /// Most rows [default: 100].
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// List batches
///
/// In the order of their creation. Jobs that were submitted alone are in none of them.
#[utoipa::path(
    get,
    path = "/batches",
    tag = "batches",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of batches.", body = BatchList),
        (status = 400, description = "A query that cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A limit or cursor that is none.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Reader(caller): Reader,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<BatchList>, ApiError> {
    let (limit, after) = (page::limit(query.limit)?, page::after(query.cursor.as_deref())?);
    let page = state.store.ledger().batches(&caller.tenant, after, limit).await?;
    let mut batches = Vec::with_capacity(page.rows.len());
    for batch in page.rows {
        batches.push(super::view(&state, batch).await?);
    }
    Ok(Json(BatchList { batches, next: page.next.map(|cursor| cursor.to_string()) }))
}

/// One batch
#[utoipa::path(
    get,
    path = "/batches/{batch}",
    tag = "batches",
    params(("batch" = String, Path, description = "The batch's name.")),
    responses(
        (status = 200, description = "The batch with its counts.", body = BatchView),
        (status = 404, description = "No such batch.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn one(
    State(state): State<AppState>,
    Reader(caller): Reader,
    BatchPath(name): BatchPath,
) -> Result<Json<BatchView>, ApiError> {
    let batch = super::find(&state, &caller, &name).await?;
    Ok(Json(super::view(&state, batch).await?))
}

/// The counts of a batch
#[utoipa::path(
    get,
    path = "/batches/{batch}/counts",
    tag = "batches",
    params(("batch" = String, Path, description = "The batch's name.")),
    responses(
        (status = 200, description = "Its jobs by status.", body = CountsView),
        (status = 404, description = "No such batch.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn counts(
    State(state): State<AppState>,
    Reader(caller): Reader,
    BatchPath(name): BatchPath,
) -> Result<Json<CountsView>, ApiError> {
    super::find(&state, &caller, &name).await?;
    let counts = state.store.ledger().counts_of(Some(&caller.tenant), Some(&name)).await?;
    Ok(Json(counts.into()))
}

/// The lines of a batch that are no jobs
///
/// The first ten thousand of them.
#[utoipa::path(
    get,
    path = "/batches/{batch}/bad-lines",
    tag = "batches",
    params(("batch" = String, Path, description = "The batch's name."), PageQuery),
    responses(
        (status = 200, description = "A page of them, by number.", body = BadLineList),
        (status = 400, description = "A query that cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such batch.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A limit or cursor that is none.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn bad_lines(
    State(state): State<AppState>,
    Reader(caller): Reader,
    BatchPath(name): BatchPath,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<BadLineList>, ApiError> {
    super::find(&state, &caller, &name).await?;
    let (limit, after) = (page::limit(query.limit)?, page::after(query.cursor.as_deref())?);
    let page = state.store.ledger().bad_lines(&caller.tenant, &name, after, limit).await?;
    Ok(Json(BadLineList {
        lines: page.rows.into_iter().map(BadLineView::from).collect(),
        next: page.next.map(|cursor| cursor.to_string()),
    }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AnswersQuery {
    /// Only answers about this video.
    #[serde(default, deserialize_with = "page::filter")]
    video: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Most rows of a page [default: 100]. All answers come in one stream with `Accept: application/x-ndjson`.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// The answers of a batch
///
/// A page as JSON, or all of them as lines with `Accept: application/x-ndjson`.
#[utoipa::path(
    get,
    path = "/batches/{batch}/answers",
    tag = "batches",
    params(("batch" = String, Path, description = "The batch's name."), AnswersQuery),
    responses(
        (status = 200, description = "Its answers.", content((AnswerList = "application/json"), (String = "application/x-ndjson"))),
        (status = 400, description = "A query that cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such batch.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 406, description = "Neither JSON nor lines are wanted.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A limit or cursor that is none.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn answers(
    State(state): State<AppState>,
    Reader(caller): Reader,
    BatchPath(name): BatchPath,
    ApiQuery(query): ApiQuery<AnswersQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    super::find(&state, &caller, &name).await?;
    let filter = JobFilter {
        tenant: Some(&caller.tenant),
        batch: Some(&name),
        status: Some(JobStatus::Answered),
        video: query.video.as_deref(),
    };
    let (limit, after) = (page::limit(query.limit)?, page::after(query.cursor.as_deref())?);
    answers::respond(&state, &filter, Form::of(&headers)?, after, limit).await
}
