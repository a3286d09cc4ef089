//! Whether the server lives, whether it can work, and its metrics. No key is needed: nothing of a tenant is told.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use spectemp_queue::DoorbellState;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{error::ApiError, problem::ProblemBody, state::AppState};

/// The ledger must answer in this time.
const PATIENCE: Duration = Duration::from_secs(3);

/// The routes beside `/api/v1`.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// That it lives.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    status: &'static str,
    /// The program's version.
    version: &'static str,
}

/// Whether it can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReadyWord {
    /// All is there.
    Ready,
    /// It works, with something missing.
    Degraded,
    /// It cannot work.
    Unavailable,
}

/// Whether it can work, and what is missing.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    status: ReadyWord,
    /// What is missing; empty where all is there.
    reasons: Vec<String>,
    /// `up` or `down`.
    ledger: &'static str,
    /// `up` or `down`.
    doorbell: &'static str,
}

/// That the server lives
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "server",
    security(()),
    responses((status = 200, description = "It lives.", body = Health))
)]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Whether the server can work
///
/// Without its ledger it cannot (503). Without Redis it can: jobs wait in the ledger, and workers find them there.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "server",
    security(()),
    responses(
        (status = 200, description = "It can, perhaps with something missing (`degraded`).", body = Readiness),
        (status = 503, description = "It cannot.", body = Readiness),
    )
)]
pub(crate) async fn readyz(State(state): State<AppState>) -> Response {
    let mut reasons = Vec::new();
    let ledger = match tokio::time::timeout(PATIENCE, state.store.ledger().ping()).await {
        Ok(Ok(())) => "up",
        Ok(Err(error)) => {
            tracing::warn!(error = %error, "the ledger does not answer");
            reasons.push("the ledger cannot be reached".to_owned());
            "down"
        }
        Err(_) => {
            reasons.push(format!("the ledger did not answer in {} s", PATIENCE.as_secs()));
            "down"
        }
    };
    let doorbell = match state.doorbell.state() {
        DoorbellState::Up => "up",
        DoorbellState::Down { since, .. } => {
            let seconds = since.elapsed().unwrap_or_default().as_secs();
            reasons.push(format!(
                "redis has not answered for {seconds} s: workers find jobs by looking into the ledger"
            ));
            "down"
        }
    };
    let (code, status) = match (ledger, doorbell) {
        ("up", "up") => (StatusCode::OK, ReadyWord::Ready),
        ("up", _) => (StatusCode::OK, ReadyWord::Degraded),
        _ => (StatusCode::SERVICE_UNAVAILABLE, ReadyWord::Unavailable),
    };
    (code, Json(Readiness { status, reasons, ledger, doorbell })).into_response()
}

/// Metrics for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    security(()),
    responses(
        (status = 200, description = "The text format of Prometheus.", body = String, content_type = "text/plain"),
        (status = 404, description = "This server keeps none.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let render = state.settings.metrics.as_ref();
    let render = render.ok_or_else(|| ApiError::NotFound("metrics of this server".to_owned()))?;
    measure_queue(&state).await;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render()).into_response())
}

/// How many jobs there are by state. Where the ledger does not answer, the numbers stay as they were.
async fn measure_queue(state: &AppState) {
    let counting = state.store.ledger().counts_of(None, None);
    let Ok(Ok(counts)) = tokio::time::timeout(PATIENCE, counting).await else { return };
    let states = [
        ("queued", counts.queued),
        ("running", counts.running),
        ("answered", counts.answered),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
    ];
    for (state, jobs) in states {
        metrics::gauge!("spectemp_jobs", "state" => state).set(jobs as f64);
    }
}
