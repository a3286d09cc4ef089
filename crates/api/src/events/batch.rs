//! The events of a batch: `counts` whenever they change, and `end`.

use axum::{extract::State, http::HeaderMap, response::Response};

use super::{
    job::json,
    stream::{self, Story, Told},
};
use crate::{
    auth::{Caller, Reader},
    batches,
    error::ApiError,
    extract::BatchPath,
    problem::ProblemBody,
    shape::BatchView,
    state::AppState,
};

/// Follow a batch
///
/// Server-sent events: `counts` (a batch) whenever its counts change, and at last `end` (a batch), when all its lines
/// are in and no job waits or runs. With `Last-Event-ID` the stream goes on after that event; after the end the answer
/// is 204.
#[utoipa::path(
    get,
    path = "/batches/{batch}/events",
    tag = "batches",
    params(
        ("batch" = String, Path, description = "The batch's name."),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen.")
    ),
    responses(
        (status = 200, description = "The events.", body = String, content_type = "text/event-stream"),
        (status = 204, description = "The end was seen already."),
        (status = 404, description = "No such batch.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn batch(
    State(state): State<AppState>,
    Reader(caller): Reader,
    BatchPath(name): BatchPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let view = current(&state, &caller, &name).await?;
    let told = stream::last_event_id(&headers).map(str::to_owned);
    if view.ended && told.as_deref() == Some(format!("{}-end", position(&view)).as_str()) {
        return Ok(stream::ended());
    }
    stream::tell(&state, BatchStory { state: state.clone(), caller, name, told })
}

async fn current(state: &AppState, caller: &Caller, name: &str) -> Result<BatchView, ApiError> {
    let batch = batches::find(state, caller, name).await?;
    batches::view(state, batch).await
}

/// All that can change, as an event's id.
fn position(view: &BatchView) -> String {
    let counts = &view.counts;
    format!(
        "{}-{}-{}-{}-{}-{}-{}",
        counts.queued,
        counts.running,
        counts.answered,
        counts.failed,
        counts.cancelled,
        view.bad_lines,
        u8::from(view.sealed)
    )
}

struct BatchStory {
    state: AppState,
    caller: Caller,
    name: String,
    told: Option<String>,
}

impl Story for BatchStory {
    async fn next(&mut self) -> Result<(Vec<Told>, bool), ApiError> {
        let view = current(&self.state, &self.caller, &self.name).await?;
        let position = position(&view);
        let mut told = Vec::new();
        if self.told.as_ref() != Some(&position) {
            self.told = Some(position.clone());
            told.push(Told { name: "counts", id: position.clone(), data: json(&view)? });
        }
        if view.ended {
            told.push(Told { name: "end", id: format!("{position}-end"), data: json(&view)? });
        }
        Ok((told, view.ended))
    }
}
