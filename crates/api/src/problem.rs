//! The outermost layer: every request gets an id, and every answer that is no success becomes a problem of RFC 9457
//! that names it, whoever made it: a handler, an extractor, the router, a panic.

use std::{any::Any, time::Instant};

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tracing::Instrument as _;
use utoipa::ToSchema;

use crate::{error::ApiError, shape::BadLineView};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROBLEM_JSON: &str = "application/problem+json";
/// The longest id that is taken over from a request.
const MAX_ID_BYTES: usize = 128;

/// What a handler leaves in its response for this layer.
#[derive(Clone)]
pub(crate) struct Problem(pub(crate) ApiError);

/// The body of every answer that is no success (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// What kind of problem it is: a stable URN.
    #[serde(rename = "type")]
    #[schema(example = "urn:spectemp:problem:not-found")]
    kind: String,
    /// The kind in words.
    title: String,
    /// The status of the answer.
    status: u16,
    /// What is wrong here, and what to do about it.
    detail: String,
    /// The path that was asked.
    instance: String,
    /// The id of the request, as in the header `x-request-id`.
    request_id: String,
    /// The first bad lines of a batch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<BadLineView>,
}

/// Gives the request its id, runs it, and writes the problem where there is one.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let instance = request.uri().path().to_owned();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!("request", request.id = %id, http.method = %method, http.path = %instance);
    if let Some(Ok(caller)) = request.headers().get("traceparent").map(HeaderValue::to_str) {
        spectemp_telemetry::follow(&span, caller);
    }
    let response = next.run(request).instrument(span.clone()).await;
    let mut response = match problem_of(&response) {
        Some(problem) => with_body(response, &problem, &instance, &id),
        None => response,
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    measure(&span, method.as_str(), route, &response, started);
    response
}

/// The answer to a panic.
pub(crate) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic.message = text, "a request panicked");
    ApiError::Internal.into_response()
}

fn request_id(request: &Request) -> String {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if (1..=MAX_ID_BYTES).contains(&id.len()) => id.to_owned(),
        _ => uuid::Uuid::now_v7().to_string(),
    }
}

/// The problem of a response; also of one that no handler of ours has made.
fn problem_of(response: &Response) -> Option<ApiError> {
    if let Some(Problem(error)) = response.extensions().get::<Problem>() {
        return Some(error.clone());
    }
    let status = response.status();
    match status {
        _ if !status.is_client_error() && !status.is_server_error() => None,
        StatusCode::NOT_FOUND => Some(ApiError::NoRoute),
        StatusCode::METHOD_NOT_ALLOWED => Some(ApiError::NoMethod),
        StatusCode::SERVICE_UNAVAILABLE if response.headers().contains_key(header::CONTENT_TYPE) => None,
        _ if status.is_client_error() => Some(ApiError::BadRequest("the request cannot be read".to_owned())),
        _ => Some(ApiError::Internal),
    }
}

fn with_body(response: Response, error: &ApiError, instance: &str, id: &str) -> Response {
    let (status, kind, title) = error.kind();
    let errors = match error {
        ApiError::NoJobs { errors, .. } => errors.clone(),
        _ => Vec::new(),
    };
    let body = ProblemBody {
        kind: format!("urn:spectemp:problem:{kind}"),
        title: title.to_owned(),
        status: status.as_u16(),
        detail: error.to_string(),
        instance: instance.to_owned(),
        request_id: id.to_owned(),
        errors,
    };
    let (mut parts, _) = response.into_parts();
    parts.status = status;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(wait) = error.retry_after() {
        let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
        parts.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer realm=\"spectemp\"");
        parts.headers.insert(header::WWW_AUTHENTICATE, scheme);
    }
    Response::from_parts(parts, Body::from(serde_json::to_vec(&body).unwrap_or_default()))
}

fn measure(span: &tracing::Span, method: &str, route: Option<String>, response: &Response, started: Instant) {
    let (status, took) = (response.status().as_u16(), started.elapsed());
    let _in = span.enter();
    tracing::info!(http.status = status, duration_ms = took.as_secs_f64() * 1000.0, "answered a request");
    let route = route.unwrap_or_else(|| "none".to_owned());
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.to_string())];
    metrics::histogram!("spectemp_http_request_seconds", &labels).record(took.as_secs_f64());
}
