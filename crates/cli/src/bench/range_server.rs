//! An HTTP server on the loopback interface that serves one file by ranges, late if asked to, and counts what it sends.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
    serve::ListenerExt as _,
};
use bytes::Bytes;
use futures::stream;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    task::JoinHandle,
};

const CHUNK_BYTES: u64 = 64 << 10;

/// The server; it ends when it is dropped.
pub(crate) struct RangeServer {
    url: String,
    state: Arc<Served>,
    task: JoinHandle<()>,
}

/// What went over the wire since the last [`RangeServer::take`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// Requests of any method.
    pub(crate) requests: u64,
    /// The bytes of the file that were handed to the connection, one range for each chunk.
    pub(crate) sent: Vec<Range<u64>>,
}

impl Traffic {
    /// All bytes sent.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_in(&(0..u64::MAX))
    }

    /// Those of them that lie in `range`.
    pub(crate) fn bytes_in(&self, range: &Range<u64>) -> u64 {
        let common = |sent: &Range<u64>| sent.end.min(range.end).saturating_sub(sent.start.max(range.start));
        self.sent.iter().map(common).sum()
    }
}

struct Served {
    path: PathBuf,
    size: u64,
    etag: String,
    latency: Mutex<Duration>,
    traffic: Mutex<Traffic>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RangeServer {
    /// Serves the file at `path` on a free port.
    pub(crate) async fn start(path: &Path) -> anyhow::Result<Self> {
        let size = tokio::fs::metadata(path)
            .await
            .with_context(|| format!("{} cannot be served", path.display()))?
            .len();
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.context("no free port on 127.0.0.1")?;
        let url = format!("http://{}/video.mp4", listener.local_addr()?);
        let state = Arc::new(Served {
            path: path.to_path_buf(),
            size,
            etag: format!("\"{size:x}\""),
            latency: Mutex::default(),
            traffic: Mutex::default(),
        });
        // Without it small answers wait for the acknowledgement of the one before.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move {
            if let Err(cause) = axum::serve(listener, router).await {
                tracing::error!(%cause, "the range server ended");
            }
        });
        Ok(Self { url, state, task })
    }

    /// Where the file is served.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// From now on each request waits so long for its answer.
    pub(crate) fn set_latency(&self, latency: Duration) {
        *lock(&self.state.latency) = latency;
    }

    /// What went over the wire since the last call.
    pub(crate) fn take(&self) -> Traffic {
        std::mem::take(&mut *lock(&self.state.traffic))
    }
}

impl Drop for RangeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(served): State<Arc<Served>>, method: Method, headers: HeaderMap) -> Response<Body> {
    lock(&served.traffic).requests += 1;
    let latency = *lock(&served.latency);
    tokio::time::sleep(latency).await;
    let wanted = headers.get(header::RANGE).map(|value| parse(value, served.size));
    match respond(&served, &method, wanted).await {
        Ok(response) => response,
        Err(cause) => {
            tracing::error!(%cause, "the range server cannot read its file");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// `wanted`: none without a Range header, `Some(None)` with one that cannot be satisfied.
async fn respond(
    served: &Arc<Served>,
    method: &Method,
    wanted: Option<Option<Range<u64>>>,
) -> anyhow::Result<Response<Body>> {
    let partial = wanted.is_some();
    let Some(range) = wanted.unwrap_or(Some(0..served.size)) else {
        return Ok(Response::builder().status(StatusCode::RANGE_NOT_SATISFIABLE).body(Body::empty())?);
    };
    let mut response = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "video/mp4")
        .header(header::ETAG, &served.etag)
        .header(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT")
        .header(header::CONTENT_LENGTH, range.end - range.start);
    if partial {
        let value = format!("bytes {}-{}/{}", range.start, range.end - 1, served.size);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, value);
    }
    let body = if method == Method::HEAD { Body::empty() } else { body(served, range).await? };
    Ok(response.body(body)?)
}

/// The bytes of a range, counted as they go out: a reader that hangs up does not cost the rest.
async fn body(served: &Arc<Served>, range: Range<u64>) -> io::Result<Body> {
    let mut file = File::open(&served.path).await?;
    file.seek(io::SeekFrom::Start(range.start)).await?;
    let chunks =
        stream::try_unfold((file, range, Arc::clone(served)), |(mut file, rest, served)| async move {
            let length = CHUNK_BYTES.min(rest.end - rest.start);
            if length == 0 {
                return Ok::<_, io::Error>(None);
            }
            let mut chunk = vec![0; length as usize];
            file.read_exact(&mut chunk).await?;
            let next = rest.start + length;
            lock(&served.traffic).sent.push(rest.start..next);
            Ok(Some((Bytes::from(chunk), (file, next..rest.end, served))))
        });
    Ok(Body::from_stream(chunks))
}

/// `bytes=a-b`, `bytes=a-` and `bytes=-n`; none where it cannot be satisfied.
fn parse(value: &HeaderValue, size: u64) -> Option<Range<u64>> {
    let (from, to) = value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) => from..to.saturating_add(1).min(size),
        (Ok(from), Err(_)) => from..size,
        (Err(_), Ok(last)) => size.saturating_sub(last)..size,
        _ => return None,
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_writes_them() {
        let parse = |text: &'static str| parse(&HeaderValue::from_static(text), 100);
        assert_eq!(parse("bytes=0-9"), Some(0..10));
        assert_eq!(parse("bytes=90-"), Some(90..100));
        assert_eq!(parse("bytes=90-400"), Some(90..100));
        assert_eq!(parse("bytes=-7"), Some(93..100));
        assert_eq!(parse("bytes=100-"), None);
        assert_eq!(parse("bytes=9-3"), None);
        assert_eq!(parse("lines=1-2"), None);
    }

    #[test]
    fn traffic_inside_a_range_is_told_apart() {
        let traffic = Traffic { requests: 2, sent: vec![0..10, 90..100] };
        assert_eq!(traffic.bytes(), 20);
        assert_eq!(traffic.bytes_in(&(5..95)), 10);
    }
}
