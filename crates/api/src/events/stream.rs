//! What both kinds of stream share: how often the ledger is asked, how a stream ends, how many there may be.

use std::{convert::Infallible, time::Duration};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{error::ApiError, state::AppState};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The ledger is asked so often while things happen, and less often while nothing does.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One thing that is told.
pub(super) struct Told {
    /// The event's name.
    pub(super) name: &'static str,
    /// What stands for it and everything before it.
    pub(super) id: String,
    /// JSON.
    pub(super) data: String,
}

/// Where a story is told from, step by step.
pub(super) trait Story: Send + 'static {
    /// What has happened since the last step, and whether it was the end.
    fn next(&mut self) -> impl Future<Output = Result<(Vec<Told>, bool), ApiError>> + Send;
}

/// The id of the last event that the client has seen.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok())
}

/// The answer to a client that has seen the end: by the standard it asks no more.
pub(super) fn ended() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The stream of `story`.
pub(super) fn tell(state: &AppState, story: impl Story) -> Result<Response, ApiError> {
    let permit = state.streams.clone().try_acquire_owned().map_err(|_| {
        ApiError::Unavailable("too many streams of events are open: ask for the status instead".to_owned())
    })?;
    let (sender, receiver) = mpsc::channel(16);
    let stop = state.stop.clone();
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            () = run(story, &sender) => {}
            () = sender.closed() => {}
            () = stop.cancelled() => {}
        }
    });
    let stream = Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = stream.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Some proxies hold a stream back until it ends.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

async fn run(mut story: impl Story, sender: &mpsc::Sender<Result<Event, Infallible>>) {
    let mut pause = SOONEST;
    loop {
        match story.next().await {
            Ok((told, end)) => {
                pause = if told.is_empty() { (pause * 3 / 2).min(LATEST) } else { SOONEST };
                for Told { name, id, data } in told {
                    let event = Event::default().event(name).id(id).data(data);
                    if sender.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                if end {
                    return;
                }
            }
            Err(ApiError::NotFound(_)) => return,
            // The ledger may be back soon; the client waits with us.
            Err(_) => pause = LATEST,
        }
        tokio::time::sleep(pause).await;
    }
}
