//! A small HTTP server that serves one file by ranges and counts the bytes of it that go out.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
};
use tokio::{net::TcpListener, runtime::Runtime};

/// The server, on threads of its own; it ends when it is dropped.
pub(crate) struct RangeServer {
    pub(crate) url: String,
    served: Arc<Served>,
    _runtime: Runtime,
}

struct Served {
    content: Bytes,
    sent: AtomicU64,
}

impl RangeServer {
    pub(crate) fn start(file: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let served =
            Arc::new(Served { content: std::fs::read(file).unwrap().into(), sent: AtomicU64::new(0) });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&served));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/video.mp4", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, served, _runtime: runtime }
    }

    /// Bytes of the file that went out since the last call.
    pub(crate) fn take(&self) -> u64 {
        self.served.sent.swap(0, Ordering::SeqCst)
    }
}

async fn answer(State(served): State<Arc<Served>>, method: Method, headers: HeaderMap) -> Response<Body> {
    let size = served.content.len();
    let wanted = headers.get(header::RANGE).map(|value| parse(value, size));
    let range = wanted.clone().unwrap_or(0..size);
    let mut response = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, "\"one\"")
        .header(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT")
        .header(header::CONTENT_LENGTH, range.len());
    if wanted.is_some() {
        let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, value);
    }
    if method == Method::HEAD {
        return response.body(Body::empty()).unwrap();
    }
    served.sent.fetch_add(range.len() as u64, Ordering::SeqCst);
    response.body(Body::from(served.content.slice(range))).unwrap()
}

/// `bytes=a-b`, `bytes=a-` and `bytes=-n`.
fn parse(value: &HeaderValue, size: usize) -> Range<usize> {
    let (from, to) = value.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) => from..(to + 1).min(size),
        (Ok(from), Err(_)) => from..size,
        (Err(_), Ok(last)) => size.saturating_sub(last)..size,
        (Err(_), Err(_)) => panic!("what does {value:?} mean?"),
    }
}
