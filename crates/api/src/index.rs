//! Indexes: standing sets of questions over a prefix. A listing is only asked for here; whoever runs the housekeeping
//! does it.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spectemp_store::{Index, IndexFigures, IndexSpec, RestoreTier, StoreError, location, read_questions};
use spectemp_types::{PlanDefaults, VideoUri, moment_text};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::{Admin, Caller, Reader},
    error::ApiError,
    extract::{ApiJson, IndexPath},
    problem::ProblemBody,
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(one, delete))
        .routes(routes!(run))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// An index to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewIndex)]
pub(crate) struct IndexRequest {
    /// Its name: letters, digits, `.`, `_` and `-`.
    #[schema(example = "cameras")]
    name: String,
    /// The folder whose objects are asked about, on the server's list.
    #[schema(example = "s3://bucket/path/")]
    prefix: String,
    /// Globs of names relative to the prefix; `*` crosses slashes. None: all names.
    #[serde(default)]
    include: Vec<String>,
    /// Globs of names that are left out.
    #[serde(default)]
    exclude: Vec<String>,
    /// What is asked about each object.
    questions: Vec<QuestionRequest>,
    /// The plan of questions that name none.
    plan: Option<String>,
    /// When it is listed again: five fields of cron, UTC.
    #[schema(example = "0 3 * * *")]
    schedule: Option<String>,
    /// Days for which objects in archive classes are restored; without it they are skipped.
    restore_days: Option<u32>,
    /// `bulk`, `standard` or `expedited`.
    restore_tier: Option<String>,
    /// An S3 Inventory (CSV or Parquet) that is read in place of listing the bucket.
    inventory: Option<String>,
    /// Where the results of its batch are written.
    results: Option<String>,
    /// Whether it is listed at once [default: true].
    run: Option<bool>,
}

/// A question of an index.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewIndexQuestion)]
pub(crate) struct QuestionRequest {
    /// Leads the ids of its jobs [default: made from its content].
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The question.
    question: String,
    /// Its choices.
    #[serde(default)]
    choices: Vec<String>,
    /// The plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    /// Settings of the plan.
    #[serde(default)]
    #[schema(value_type = Object)]
    set: BTreeMap<String, Value>,
    /// Of its jobs.
    #[serde(default)]
    priority: i32,
}

/// An index and how its listing goes.
#[derive(Serialize, ToSchema)]
#[schema(as = Index)]
pub(crate) struct IndexView {
    /// Its name.
    name: String,
    /// The folder.
    prefix: String,
    /// Names that are taken.
    include: Vec<String>,
    /// Names that are left out.
    exclude: Vec<String>,
    /// How many questions it asks.
    questions: u64,
    /// When it is listed again.
    schedule: Option<String>,
    /// Where its results are written.
    results: Option<String>,
    /// The batch of its jobs.
    batch: String,
    /// `idle`, `wanted`, `listing`, `paused` or `failed` (it is tried again).
    state: &'static str,
    /// What stopped the last try.
    error: Option<String>,
    /// Number of the current or last listing.
    listing: u64,
    /// When that began.
    started_at: Option<String>,
    /// When that ended.
    ended_at: Option<String>,
    /// What that has come to so far.
    figures: FiguresView,
    /// When the index was made.
    created_at: String,
}

/// What a listing has come to.
#[derive(Serialize, ToSchema)]
#[schema(as = IndexFigures)]
pub(crate) struct FiguresView {
    /// Objects that were seen.
    listed: u64,
    /// Those that belong to the index.
    objects: u64,
    /// Their bytes.
    bytes: u64,
    /// Those that were not known before.
    new: u64,
    /// Those of which another version was known.
    changed: u64,
    /// Those that are being restored.
    restoring: u64,
    /// Those that are left out: archived, or of a name that cannot be opened.
    skipped: u64,
    /// Jobs that were enqueued.
    jobs: u64,
    /// Jobs whose ids the batch has with other content.
    conflicts: u64,
    /// Ranges of keys that are done …
    ranges_done: u64,
    /// … of so many.
    ranges: u64,
}

/// All indexes of a tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct IndexList {
    /// By name.
    indexes: Vec<IndexView>,
}

impl FiguresView {
    fn of(index: &Index) -> Self {
        let IndexFigures { listed, objects, bytes, new, changed, restoring, skipped, jobs, conflicts } =
            index.figures;
        Self {
            listed,
            objects,
            bytes,
            new,
            changed,
            restoring,
            skipped,
            jobs,
            conflicts,
            ranges_done: index.ranges_done,
            ranges: index.ranges,
        }
    }
}

impl From<Index> for IndexView {
    fn from(index: Index) -> Self {
        Self {
            state: match (index.paused, &index.error, index.listing, index.wanted) {
                (true, ..) => "paused",
                (_, Some(_), ..) => "failed",
                (_, _, true, _) => "listing",
                (_, _, _, true) => "wanted",
                _ => "idle",
            },
            figures: FiguresView::of(&index),
            name: index.name,
            prefix: index.spec.prefix.redacted(),
            include: index.spec.include,
            exclude: index.spec.exclude,
            questions: index.spec.questions.len() as u64,
            schedule: index.spec.schedule,
            results: index.spec.results.as_ref().map(VideoUri::redacted),
            batch: index.batch,
            error: index.error,
            listing: index.run,
            started_at: index.started_ms.map(moment_text),
            ended_at: index.ended_ms.map(moment_text),
            created_at: moment_text(index.created_ms),
        }
    }
}

/// What can go wrong with an index besides what goes wrong with everything.
fn problem(error: StoreError) -> ApiError {
    match error {
        StoreError::NoIndex(name) => ApiError::NotFound(format!("index {name:?}")),
        StoreError::Invalid(cause) => ApiError::Invalid(cause),
        other => other.into(),
    }
}

async fn find(state: &AppState, caller: &Caller, name: &str) -> Result<Index, ApiError> {
    state.store.ledger().index(&caller.tenant, name).await.map_err(problem)
}

/// Make an index
///
/// Its objects are listed soon after (unless `run` is false), and again as its schedule says: what is new or changed
/// becomes jobs.
#[utoipa::path(
    post,
    path = "/indexes",
    tag = "indexes",
    request_body = IndexRequest,
    responses(
        (status = 201, description = "It is made.", body = IndexView, headers(("Location" = String, description = "Its path."))),
        (status = 400, description = "A body that cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "There is one of that name.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "No JSON.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A setting is not possible.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Admin(caller): Admin,
    ApiJson(request): ApiJson<IndexRequest>,
) -> Result<Response, ApiError> {
    let ledger = state.store.ledger();
    let spec = spec(&state, &request)?;
    spec.check(&state.locations).map_err(problem)?;
    if ledger.index(&caller.tenant, &request.name).await.is_ok() {
        return Err(ApiError::Conflict(format!("there is an index {:?} already", request.name)));
    }
    let index = ledger.create_index(&caller.tenant, &request.name, &spec).await.map_err(problem)?;
    if request.run.unwrap_or(true) {
        ledger.want_listing(index.id).await.map_err(problem)?;
    }
    let index = ledger.index_by_id(index.id).await.map_err(problem)?;
    let path = format!("/api/v1/indexes/{}", index.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, path)], Json(IndexView::from(index))).into_response())
}

fn spec(state: &AppState, request: &IndexRequest) -> Result<IndexSpec, ApiError> {
    let uri = |text: &str| Ok::<_, ApiError>(location::normalize(&VideoUri::parse(text)?)?);
    let lines = request.questions.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>();
    let lines = lines.map_err(|cause| ApiError::Invalid(cause.to_string()))?.join("\n");
    let plan = request.plan.as_deref().unwrap_or(&state.settings.plan);
    let questions =
        read_questions(&lines, &PlanDefaults { plan, set: &state.settings.set }).map_err(problem)?;
    let tier = request.restore_tier.as_deref().map(str::parse::<RestoreTier>).transpose();
    Ok(IndexSpec {
        prefix: uri(&request.prefix)?,
        include: request.include.clone(),
        exclude: request.exclude.clone(),
        questions,
        schedule: request.schedule.clone(),
        restore_days: request.restore_days,
        restore_tier: tier.map_err(ApiError::Invalid)?.unwrap_or_default(),
        inventory: request.inventory.as_deref().map(uri).transpose()?,
        results: request.results.as_deref().map(uri).transpose()?,
    })
}

/// List indexes
#[utoipa::path(
    get,
    path = "/indexes",
    tag = "indexes",
    responses((status = 200, description = "All of them, by name.", body = IndexList))
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Reader(caller): Reader,
) -> Result<Json<IndexList>, ApiError> {
    let indexes = state.store.ledger().indexes(Some(&caller.tenant)).await.map_err(problem)?;
    Ok(Json(IndexList { indexes: indexes.into_iter().map(IndexView::from).collect() }))
}

/// One index
#[utoipa::path(
    get,
    path = "/indexes/{index}",
    tag = "indexes",
    params(("index" = String, Path, description = "The index's name.")),
    responses(
        (status = 200, description = "The index and how its listing goes.", body = IndexView),
        (status = 404, description = "No such index.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn one(
    State(state): State<AppState>,
    Reader(caller): Reader,
    IndexPath(name): IndexPath,
) -> Result<Json<IndexView>, ApiError> {
    Ok(Json(find(&state, &caller, &name).await?.into()))
}

/// Delete an index
///
/// Its catalogue goes with it; its jobs and their answers stay.
#[utoipa::path(
    delete,
    path = "/indexes/{index}",
    tag = "indexes",
    params(("index" = String, Path, description = "The index's name.")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "No such index.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Admin(caller): Admin,
    IndexPath(name): IndexPath,
) -> Result<StatusCode, ApiError> {
    let index = find(&state, &caller, &name).await?;
    state.store.ledger().delete_index(index.id).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the objects of an index
///
/// It begins soon; a listing that was interrupted goes on.
#[utoipa::path(
    post,
    path = "/indexes/{index}/run",
    tag = "indexes",
    params(("index" = String, Path, description = "The index's name.")),
    responses(
        (status = 202, description = "It is asked for.", body = IndexView),
        (status = 404, description = "No such index.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn run(
    State(state): State<AppState>,
    Admin(caller): Admin,
    IndexPath(name): IndexPath,
) -> Result<Response, ApiError> {
    let index = find(&state, &caller, &name).await?;
    state.store.ledger().want_listing(index.id).await.map_err(problem)?;
    let index = find(&state, &caller, &name).await?;
    Ok((StatusCode::ACCEPTED, Json(IndexView::from(index))).into_response())
}

/// Pause an index
///
/// A listing stops at its next page.
#[utoipa::path(
    post,
    path = "/indexes/{index}/pause",
    tag = "indexes",
    params(("index" = String, Path, description = "The index's name.")),
    responses(
        (status = 200, description = "It is paused.", body = IndexView),
        (status = 404, description = "No such index.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn pause(
    State(state): State<AppState>,
    Admin(caller): Admin,
    IndexPath(name): IndexPath,
) -> Result<Json<IndexView>, ApiError> {
    set_paused(&state, &caller, &name, true).await
}

/// Let a paused index go on
#[utoipa::path(
    post,
    path = "/indexes/{index}/resume",
    tag = "indexes",
    params(("index" = String, Path, description = "The index's name.")),
    responses(
        (status = 200, description = "It goes on.", body = IndexView),
        (status = 404, description = "No such index.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn resume(
    State(state): State<AppState>,
    Admin(caller): Admin,
    IndexPath(name): IndexPath,
) -> Result<Json<IndexView>, ApiError> {
    set_paused(&state, &caller, &name, false).await
}

async fn set_paused(
    state: &AppState,
    caller: &Caller,
    name: &str,
    paused: bool,
) -> Result<Json<IndexView>, ApiError> {
    let index = find(state, caller, name).await?;
    state.store.ledger().pause_index(index.id, paused).await.map_err(problem)?;
    Ok(Json(find(state, caller, name).await?.into()))
}
