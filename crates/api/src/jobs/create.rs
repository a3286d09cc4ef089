//! Submitting one job.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use spectemp_store::{NewJob, Submission};
use spectemp_types::{JobId, JobText, PlanDefaults, VideoUri};
use utoipa::IntoParams;

use super::LONE_BATCH;
use crate::{
    auth::{Caller, Submitter},
    batches,
    error::ApiError,
    extract::{ApiJson, ApiQuery},
    problem::ProblemBody,
    schema::nouns,
    shape::JobView,
    state::AppState,
    video,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest idempotency key.
const MOST_KEY_BYTES: usize = 255;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateQuery {
    /// The batch that the job belongs to [default: jobs].
    batch: Option<String>,
}

/// Submit a job
///
/// The body has the fields of a line of a jobs file. The same `id` in the same batch with the same content is the same
/// job (200), with other content an error (409). With `Idempotency-Key`, sending the request again gives the job of the
/// first time. Without `id` the job is given one.
#[utoipa::path(
    post,
    path = "/jobs",
    tag = "jobs",
    params(
        CreateQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "At most 255 visible ASCII characters.")
    ),
    request_body = nouns::JobText,
    responses(
        (status = 201, description = "A new job.", body = JobView, headers(("Location" = String, description = "Its path."))),
        (status = 200, description = "The job was submitted before.", body = JobView),
        (status = 400, description = "Not JSON, or a query or header that cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Other content under the same id or key.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not application/json.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Not a possible job.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Submitter(caller): Submitter,
    ApiQuery(query): ApiQuery<CreateQuery>,
    headers: HeaderMap,
    ApiJson(mut text): ApiJson<JobText>,
) -> Result<Response, ApiError> {
    let batch = query.batch.unwrap_or_else(|| LONE_BATCH.to_owned());
    batches::check_name(&batch)?;
    let once = idempotency_key(&headers)?.map(|key| Once::new(key, &batch, &text)).transpose()?;
    if let Some(once) = &once
        && let Some(job) = once.earlier(&state, &caller).await?
    {
        return Ok(answer(StatusCode::OK, job));
    }
    if text.id.is_none() {
        text.id = Some(once.as_ref().map_or_else(|| JobId::new().to_string(), Once::id));
    }
    let defaults = PlanDefaults { plan: &state.settings.plan, set: &state.settings.set };
    let new = new_job(text, None, &defaults, &state)?;
    let (status, id) = submit(&state, &caller, &batch, new).await?;
    if let Some(once) = &once {
        once.keep(&state, &caller, id).await?;
    }
    let job = super::find(&state, &caller, id).await?;
    Ok(answer(status, job.into()))
}

/// The job that `text` asks for, checked.
pub(crate) fn new_job(
    text: JobText,
    prefix: Option<&VideoUri>,
    defaults: &PlanDefaults,
    state: &AppState,
) -> Result<NewJob, ApiError> {
    text.checked_id()?;
    let video = video::place(&text.video, prefix, &state.locations)?;
    let (priority, deadline_ms) = (text.priority.unwrap_or_default(), text.deadline_ms()?);
    Ok(NewJob { spec: text.into_spec(video, defaults)?, priority, deadline_ms })
}

async fn submit(
    state: &AppState,
    caller: &Caller,
    batch: &str,
    new: NewJob,
) -> Result<(StatusCode, JobId), ApiError> {
    let submissions = state.store.ledger().submit_jobs(&caller.tenant, batch, &[new]).await?;
    match submissions.into_iter().next() {
        Some(Submission::New(id)) => {
            let span = tracing::info_span!("submit", job.id = %id, batch.name = batch);
            spectemp_telemetry::join_job(&span, id.as_uuid().as_u128());
            span.in_scope(|| state.ring(Some(id)));
            Ok((StatusCode::CREATED, id))
        }
        Some(Submission::Existing { job, .. }) => Ok((StatusCode::OK, job)),
        Some(Submission::Conflict(conflict)) => Err(ApiError::Conflict(conflict.to_string())),
        None => {
            tracing::error!("the ledger said nothing about a submitted job");
            Err(ApiError::Internal)
        }
    }
}

fn answer(status: StatusCode, job: JobView) -> Response {
    let path = format!("/api/v1/jobs/{}", job.job_id);
    (status, [(header::LOCATION, path)], Json(job)).into_response()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let bad = || {
        ApiError::BadRequest(format!(
            "Idempotency-Key must have 1 to {MOST_KEY_BYTES} visible ASCII characters"
        ))
    };
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().map_err(|_| bad())?;
    if (1..=MOST_KEY_BYTES).contains(&key.len()) { Ok(Some(key)) } else { Err(bad()) }
}

/// A request that is done once, whatever its sender repeats.
struct Once {
    key: String,
    request: [u8; 32],
}

impl Once {
    fn new(key: &str, batch: &str, text: &JobText) -> Result<Self, ApiError> {
        let request = serde_json::to_vec(&(batch, text)).map_err(|_| ApiError::Internal)?;
        Ok(Self { key: key.to_owned(), request: *blake3::hash(&request).as_bytes() })
    }

    /// The id of a job that has none: the same for the same key, so that two requests at once make one job.
    fn id(&self) -> String {
        format!("key-{}", &blake3::hash(self.key.as_bytes()).to_hex()[..32])
    }

    /// The job of an earlier request with this key.
    async fn earlier(&self, state: &AppState, caller: &Caller) -> Result<Option<JobView>, ApiError> {
        let Some(earlier) = state.store.ledger().request(&caller.tenant, &self.key).await? else {
            return Ok(None);
        };
        if earlier.request != self.request {
            return Err(self.reused());
        }
        Ok(Some(super::find(state, caller, earlier.job).await?.into()))
    }

    /// Keeps which job this key has made.
    async fn keep(&self, state: &AppState, caller: &Caller, job: JobId) -> Result<(), ApiError> {
        let kept = state.store.ledger().put_request(&caller.tenant, &self.key, &self.request, job).await?;
        if kept.request == self.request { Ok(()) } else { Err(self.reused()) }
    }

    fn reused(&self) -> ApiError {
        ApiError::KeyReused(format!(
            "Idempotency-Key {:?} was used for another request: take a new one",
            self.key
        ))
    }
}
