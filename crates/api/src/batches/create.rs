//! Submitting a batch: its lines in the body, or in an object that the server reads.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::{FromRequest as _, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;
use spectemp_store::{Batch, Webhook};
use utoipa::{IntoParams, ToSchema};

use super::{check_name, empty, manifest};
use crate::{
    auth::{Caller, Submitter},
    error::ApiError,
    extract::{ApiJson, ApiQuery},
    intake::{Defaults, Taker},
    problem::ProblemBody,
    shape::{BatchView, Intake},
    state::AppState,
    video, webhook,
};

/// Types of a body of lines.
const LINE_TYPES: [&str; 4] =
    ["application/x-ndjson", "application/jsonl", "application/x-jsonlines", "application/jsonlines"];
const WEBHOOK_SECRET: HeaderName = HeaderName::from_static("x-webhook-secret");

#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BatchQuery {
    /// The batch's name [default: a new UUID].
    name: Option<String>,
    /// The prefix that every video must lie in; relative ones are taken from it.
    videos: Option<String>,
    /// The plan of lines that name none.
    plan: Option<String>,
    /// Settings of the plan as a JSON object, which a line's own go over.
    #[param(example = r#"{"max_rounds": 2}"#)]
    set: Option<String>,
    /// The priority of lines that name none.
    priority: Option<i32>,
    /// Where the results are written when the batch has ended.
    results: Option<String>,
    /// Who is told when the batch has ended; the header `X-Webhook-Secret` may hold the secret of the signature.
    webhook: Option<String>,
}

/// A batch whose lines lie in an object.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    /// The object with the lines: a URI on the server's list.
    #[schema(example = "s3://bucket/questions.jsonl")]
    manifest: String,
    /// The batch's name [default: a new UUID].
    name: Option<String>,
    /// The prefix that every video must lie in; relative ones are taken from it.
    videos: Option<String>,
    /// The plan of lines that name none.
    plan: Option<String>,
    /// Settings of the plan, which a line's own go over.
    #[serde(default)]
    #[schema(value_type = Object)]
    set: BTreeMap<String, Value>,
    /// The priority of lines that name none.
    priority: Option<i32>,
    /// Where the results are written when the batch has ended.
    results: Option<String>,
    /// Who is told when the batch has ended.
    webhook: Option<WebhookRequest>,
}

/// Who is told when a batch has ended.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookRequest {
    /// An http or https URL outside of the server's own network.
    url: String,
    /// The secret of the signature [default: a new one, shown once].
    secret: Option<String>,
}

/// Submit a batch
///
/// Either the lines themselves (`application/x-ndjson`, one job per line as in a jobs file, read as a stream), or the
/// name of an object that holds them (`application/json`), which is then read in the background, by another server where
/// this one ends meanwhile: the batch is `sealed` when all lines are in. Lines that are no jobs do not stop the others. The
/// same batch again finds the jobs that are there already, so an upload that broke off is simply repeated.
#[utoipa::path(
    post,
    path = "/batches",
    tag = "batches",
    params(
        BatchQuery,
        ("X-Webhook-Secret" = Option<String>, Header, description = "The secret of the webhook's signature, for a body of lines.")
    ),
    request_body(content(
        (BatchRequest = "application/json"),
        (String = "application/x-ndjson")
    )),
    responses(
        (status = 201, description = "The lines were read; `complete` says whether all of them are jobs.", body = Intake, headers(("Location" = String, description = "Its path."))),
        (status = 202, description = "The manifest is being read.", body = BatchView),
        (status = 400, description = "A body or query that cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The batch exists with other results or another webhook.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body or manifest too large; lines of a body before the limit are jobs.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Neither JSON nor lines.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "No line is a job, or a setting is not possible.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Submitter(caller): Submitter,
    ApiQuery(query): ApiQuery<BatchQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if LINE_TYPES.contains(&kind.as_str()) {
        return from_body(&state, &caller, query, request).await;
    }
    if kind != "application/json" {
        return Err(ApiError::MediaType(
            "send the lines with `Content-Type: application/x-ndjson`, or {\"manifest\": \"s3://…\"} with `Content-Type: application/json`".to_owned(),
        ));
    }
    let ApiJson(body) = ApiJson::<BatchRequest>::from_request(request, &()).await?;
    from_manifest(&state, caller, body).await
}

async fn from_body(
    state: &AppState,
    caller: &Caller,
    query: BatchQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let most = state.settings.batch_bytes;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|text| text.parse::<u64>().ok()).is_some_and(|bytes| bytes > most) {
        return Err(too_large(most, None));
    }
    let webhook = webhook_of(query.webhook.as_deref(), secret_header(request.headers())?, state)?;
    let wanted = Wanted {
        name: query.name,
        results: query
            .results
            .as_deref()
            .map(|text| video::results(text, &state.locations))
            .transpose()?
            .map(|uri| uri.to_string()),
        webhook,
    };
    let set = query.set.as_deref().map(settings).transpose()?.unwrap_or_default();
    let defaults = Defaults::new(state, query.plan, &set, query.priority, query.videos.as_deref())?;
    let opened = open(state, caller, wanted).await?;
    state.store.ledger().put_batch(&opened.batch).await?;
    let mut taker = Taker::new(state.clone(), &caller.tenant, &opened.batch.name, defaults, None);
    read(&mut taker, request.into_body(), most).await?;
    // Without a manifest there is nobody who could have taken it over.
    let intake = taker.seal().await?.unwrap_or_default();
    Ok(answer(Intake { webhook_secret: opened.secret, ..intake }))
}

/// `set` of a query.
fn settings(text: &str) -> Result<BTreeMap<String, Value>, ApiError> {
    serde_json::from_str(text)
        .map_err(|cause| ApiError::Invalid(format!("set {text:?} is not a JSON object of settings: {cause}")))
}

async fn read(taker: &mut Taker, body: Body, most: u64) -> Result<(), ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|cause| {
            ApiError::BadRequest(format!(
                "the body broke off ({cause}); what was read is kept: send it again"
            ))
        })?;
        bytes += piece.len() as u64;
        if bytes > most {
            taker.flush().await?;
            return Err(too_large(most, Some(taker.submitted())));
        }
        taker.push(&piece).await?;
    }
    Ok(())
}

fn too_large(most: u64, submitted: Option<u64>) -> ApiError {
    let rest = match submitted {
        Some(jobs) => format!("; the lines before it became {jobs} new jobs"),
        None => "; nothing of it was read".to_owned(),
    };
    ApiError::TooLarge(format!("a batch may have {most} bytes{rest}: split it"))
}

fn answer(intake: Intake) -> Response {
    if intake.submitted + intake.existing == 0 {
        let Intake { batch, bad_lines, errors, .. } = intake;
        return ApiError::NoJobs { batch, bad_lines, errors }.into_response();
    }
    let path = format!("/api/v1/batches/{}", escape(&intake.batch));
    (StatusCode::CREATED, [(header::LOCATION, path)], Json(intake)).into_response()
}

async fn from_manifest(state: &AppState, caller: Caller, body: BatchRequest) -> Result<Response, ApiError> {
    let location = manifest::locate(&body.manifest, state)?;
    let webhook = match &body.webhook {
        Some(webhook) => webhook_of(Some(&webhook.url), webhook.secret.clone(), state)?,
        None => None,
    };
    let wanted = Wanted {
        name: body.name,
        results: body
            .results
            .as_deref()
            .map(|text| video::results(text, &state.locations))
            .transpose()?
            .map(|uri| uri.to_string()),
        webhook,
    };
    let defaults = Defaults::new(state, body.plan, &body.set, body.priority, body.videos.as_deref())?;
    manifest::check(&location, state.settings.batch_bytes).await?;
    let opened = open(state, &caller, wanted).await?;
    let defaults = serde_json::to_string(&defaults).map_err(|error| {
        tracing::error!(error = %error, "the settings of a manifest cannot be written down");
        ApiError::Internal
    })?;
    let ledger = state.store.ledger();
    ledger.put_manifest(&opened.batch, location.uri.expose(), &defaults).await?;
    state.manifests.notify_one();
    let view = super::view(state, opened.batch).await?;
    let path = format!("/api/v1/batches/{}", escape(&view.batch));
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, path)], Json(Accepted { view, secret: opened.secret }))
        .into_response())
}

/// A batch, and the secret that was made for its webhook.
#[derive(serde::Serialize)]
struct Accepted {
    #[serde(flatten)]
    view: BatchView,
    #[serde(rename = "webhook_secret", skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// What a request says about the batch itself.
struct Wanted {
    name: Option<String>,
    results: Option<String>,
    webhook: Option<(Webhook, bool)>,
}

struct Opened {
    /// To be put down.
    batch: Batch,
    /// A secret that this server made.
    secret: Option<String>,
}

/// The batch as it is to be put down, new or found; it is open until all lines are in.
async fn open(state: &AppState, caller: &Caller, wanted: Wanted) -> Result<Opened, ApiError> {
    let name = wanted.name.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    check_name(&name)?;
    let ledger = state.store.ledger();
    let (webhook, made) = wanted.webhook.map_or((None, false), |(webhook, made)| (Some(webhook), made));
    let batch = match ledger.batch(&caller.tenant, &name).await? {
        None => Batch { results: wanted.results, webhook, ..empty(&caller.tenant, &name) },
        Some(earlier) => {
            let url = |webhook: &Option<Webhook>| webhook.as_ref().map(|webhook| webhook.url.clone());
            let differs = wanted.results.is_some() && wanted.results != earlier.results
                || webhook.is_some() && url(&webhook) != url(&earlier.webhook);
            if differs {
                return Err(ApiError::Conflict(format!(
                    "batch {name:?} exists with other results or another webhook: take another name"
                )));
            }
            return Ok(Opened { batch: Batch { sealed: false, ..earlier }, secret: None });
        }
    };
    let secret = batch.webhook.as_ref().filter(|_| made).map(|webhook| webhook.secret.clone());
    Ok(Opened { batch, secret })
}

fn secret_header(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(WEBHOOK_SECRET) else { return Ok(None) };
    let text = value.to_str().map_err(|_| {
        ApiError::BadRequest("X-Webhook-Secret may hold visible ASCII characters only".to_owned())
    })?;
    Ok(Some(text.to_owned()))
}

/// The webhook, checked, and whether its secret was made here.
fn webhook_of(
    url: Option<&str>,
    secret: Option<String>,
    state: &AppState,
) -> Result<Option<(Webhook, bool)>, ApiError> {
    let Some(url) = url else {
        return match secret {
            None => Ok(None),
            Some(_) => Err(ApiError::Invalid("X-Webhook-Secret is given, but no webhook".to_owned())),
        };
    };
    let url = webhook::url(url, state.settings.private_webhooks)?;
    match secret {
        Some(secret) if (16..=256).contains(&secret.len()) => Ok(Some((Webhook { url, secret }, false))),
        Some(_) => Err(ApiError::Invalid("a webhook's secret must have 16 to 256 bytes".to_owned())),
        None => Ok(Some((Webhook { url, secret: webhook::secret()? }, true))),
    }
}

/// A batch's name as a part of a path.
fn escape(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_part_of_a_path() {
        assert_eq!(escape("a-b_c.d~1"), "a-b_c.d~1");
        assert_eq!(escape("s3://b/ü?"), "s3%3A%2F%2Fb%2F%C3%BC%3F");
    }
}
