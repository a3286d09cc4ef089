//! Extractors whose refusals are problems.

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{JsonRejection, QueryRejection},
    },
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use spectemp_types::JobId;

use crate::error::ApiError;

/// A JSON body.
pub(crate) struct ApiJson<T>(pub(crate) T);

/// The query of the URL.
pub(crate) struct ApiQuery<T>(pub(crate) T);

/// The job in the path.
pub(crate) struct JobPath(pub(crate) JobId);

/// The batch in the path.
pub(crate) struct BatchPath(pub(crate) String);

/// The index in the path.
pub(crate) struct IndexPath(pub(crate) String);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(json_error(&rejection)),
        }
    }
}

fn json_error(rejection: &JsonRejection) -> ApiError {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => {
            ApiError::MediaType("the body must be JSON, with `Content-Type: application/json`".to_owned())
        }
        JsonRejection::JsonDataError(error) => ApiError::Invalid(cause_of(error)),
        JsonRejection::JsonSyntaxError(error) => ApiError::BadRequest(cause_of(error)),
        other if other.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::TooLarge("the body is larger than this server takes here".to_owned())
        }
        other => ApiError::BadRequest(other.body_text()),
    }
}

/// What serde says, without the framework's words around it.
fn cause_of(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    format!("the body is not what is wanted here: {cause}")
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        let Query(value) = query.map_err(|rejection: QueryRejection| {
            ApiError::BadRequest(
                rejection.body_text().replace("Failed to deserialize query string: ", "query: "),
            )
        })?;
        Ok(Self(value))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = ApiError;

    /// What is no UUID is no job either.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = segment(parts, state).await?;
        text.parse().map(Self).map_err(|_| ApiError::no_job(&text))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for BatchPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = segment(parts, state).await?;
        if crate::batches::is_name(&text) { Ok(Self(text)) } else { Err(ApiError::no_batch(&text)) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IndexPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = segment(parts, state).await?;
        let plain = !text.chars().any(char::is_control);
        if plain { Ok(Self(text)) } else { Err(ApiError::NotFound(format!("index {text:?}"))) }
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, ApiError> {
    match Path::<String>::from_request_parts(parts, state).await {
        Ok(Path(text)) => Ok(text),
        Err(_) => Err(ApiError::NotFound("such thing: the path is not valid UTF-8".to_owned())),
    }
}
