//! What a request can end with besides success: one enum, each member with its status. Nothing internal is said.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use spectemp_store::{LocationError, StoreError};
use spectemp_types::{JobTextError, MomentError, PlanError, UriError};

use crate::{problem::Problem, shape::BadLineView};

/// Why a request was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Not the form that HTTP or JSON wants.
    #[error("{0}")]
    BadRequest(String),
    /// Nobody said who asks.
    #[error("no API key: send `Authorization: Bearer KEY`")]
    NoKey,
    /// No such key, or a revoked one.
    #[error("this API key is not known here, or was revoked")]
    WrongKey,
    /// A page of another site asks through its visitor's browser.
    #[error("requests of other sites are refused while this server runs without API keys")]
    OtherSite,
    /// The key may not do this.
    #[error("this needs a key of role {needs}, the key given has role {has}")]
    Role {
        /// The least role.
        needs: &'static str,
        /// The key's.
        has: &'static str,
    },
    /// A location that this server does not open.
    #[error("{0}: ask its operator (the list is `--allow`)")]
    Location(String),
    /// No such thing, or another tenant's.
    #[error("there is no {0}")]
    NotFound(String),
    /// No such route.
    #[error("there is no such path: see /docs")]
    NoRoute,
    /// A route without this method.
    #[error("this path does not know that method: see /docs")]
    NoMethod,
    /// None of the wanted forms can be given.
    #[error("{0}")]
    NotAcceptable(String),
    /// It is not in the state for that.
    #[error("{0}")]
    Conflict(String),
    /// The same idempotency key with another request.
    #[error("{0}")]
    KeyReused(String),
    /// A body beyond its limit.
    #[error("{0}")]
    TooLarge(String),
    /// A body of a type that is not read here.
    #[error("{0}")]
    MediaType(String),
    /// Understood, but not possible.
    #[error("{0}")]
    Invalid(String),
    /// No line of a batch is a job.
    #[error("no line of the body is a job; batch {batch:?} was not given any: {bad_lines} bad lines")]
    NoJobs {
        /// The batch.
        batch: String,
        /// How many lines are bad.
        bad_lines: u64,
        /// The first of them.
        errors: Vec<BadLineView>,
    },
    /// Too many requests.
    #[error("too many requests for this key: try again later")]
    RateLimit(Duration),
    /// A part that the server needs is gone for now.
    #[error("{0}")]
    Unavailable(String),
    /// A defect.
    #[error("something went wrong here; the request id finds it in the server's log")]
    Internal,
}

impl ApiError {
    /// Status, the last part of the problem's type, and its title.
    pub(crate) fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad-request", "Request cannot be read"),
            Self::NoKey => (StatusCode::UNAUTHORIZED, "no-key", "No API key"),
            Self::WrongKey => (StatusCode::UNAUTHORIZED, "wrong-key", "API key not known"),
            Self::OtherSite => (StatusCode::FORBIDDEN, "other-site", "Request of another site"),
            Self::Role { .. } => (StatusCode::FORBIDDEN, "role", "Role not sufficient"),
            Self::Location(_) => (StatusCode::FORBIDDEN, "location", "Location not allowed"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "no-route", "No such path"),
            Self::NoMethod => (StatusCode::METHOD_NOT_ALLOWED, "no-method", "Method not allowed"),
            Self::NotAcceptable(_) => (StatusCode::NOT_ACCEPTABLE, "not-acceptable", "No acceptable form"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict", "Conflict"),
            Self::KeyReused(_) => (StatusCode::CONFLICT, "key-reused", "Idempotency key used before"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Body too large"),
            Self::MediaType(_) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "Type of body not known")
            }
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Request not possible"),
            Self::NoJobs { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "no-jobs", "No job in the body"),
            Self::RateLimit(_) => (StatusCode::TOO_MANY_REQUESTS, "rate-limit", "Too many requests"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    /// When trying again makes sense.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimit(wait) => Some(*wait),
            Self::Unavailable(_) => Some(Duration::from_secs(2)),
            _ => None,
        }
    }

    /// No such job.
    pub(crate) fn no_job(id: &str) -> Self {
        Self::NotFound(format!("job {id:?}"))
    }

    /// No such batch.
    pub(crate) fn no_batch(name: &str) -> Self {
        Self::NotFound(format!("batch {name:?}"))
    }
}

impl IntoResponse for ApiError {
    /// The body is written by the outermost layer, which knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.kind().0.into_response();
        response.extensions_mut().insert(Problem(self));
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoJob(id) => Self::no_job(&id),
            StoreError::SqlDenied { .. } | StoreError::SqlTimeout { .. } | StoreError::Sql(_) => {
                Self::Invalid(error.to_string())
            }
            StoreError::Location(error) => error.into(),
            StoreError::Full { .. } => {
                tracing::error!(error = %error, "no space is left");
                Self::Unavailable("the server has no space left for this".to_owned())
            }
            StoreError::Invalid(cause) => Self::Invalid(cause),
            StoreError::Unavailable { .. } => {
                tracing::error!(error = %error, "the ledger cannot be reached");
                Self::Unavailable("the ledger cannot be reached".to_owned())
            }
            StoreError::Object { .. } => {
                tracing::error!(error = %error, "an object cannot be read or written");
                Self::Unavailable("the object store cannot be reached".to_owned())
            }
            error => {
                tracing::error!(error = %error, "a request failed");
                Self::Internal
            }
        }
    }
}

impl From<LocationError> for ApiError {
    fn from(error: LocationError) -> Self {
        match error {
            LocationError::Forbidden { .. } | LocationError::Outside { .. } => {
                Self::Location(error.to_string())
            }
            LocationError::Client { .. } => {
                tracing::error!(error = %error, "an object store's client cannot be made");
                Self::Invalid("this server has no access to that object store".to_owned())
            }
            error => Self::Invalid(error.to_string()),
        }
    }
}

impl From<JobTextError> for ApiError {
    fn from(error: JobTextError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<PlanError> for ApiError {
    fn from(error: PlanError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<UriError> for ApiError {
    fn from(error: UriError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<MomentError> for ApiError {
    fn from(error: MomentError) -> Self {
        Self::Invalid(format!("deadline {error}"))
    }
}
