//! A small HTTP server that serves one object by ranges, counts, and misbehaves on demand.
//! It refuses HEAD always, as presigned URLs do.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
};
use bytes::Bytes;
use object_store::{ClientOptions, RetryConfig, http::HttpBuilder, path::Path};
use spectemp_types::VideoUri;
use spectemp_video::VideoObject;

/// What the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every request gets this status.
    Status(u16),
    /// Ranges are ignored: 200 and everything.
    NoRanges,
    /// Answers come late.
    Slow(Duration),
    /// The connection breaks halfway through each body.
    Cut,
    /// The body stops halfway, and nothing more comes.
    Stall,
    /// The object is another one now.
    Changed,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) range: Range<u64>,
}

/// The server; it lives as long as its runtime.
pub(crate) struct Server {
    address: String,
    state: Arc<Object>,
}

struct Object {
    bytes: Bytes,
    fault: Mutex<Fault>,
    asked: Mutex<Vec<Asked>>,
}

impl Server {
    pub(crate) async fn start(bytes: Vec<u8>) -> Self {
        let state = Arc::new(Object {
            bytes: bytes.into(),
            fault: Mutex::new(Fault::None),
            asked: Mutex::new(Vec::new()),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state }
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }

    /// The object with a signature that no message may show.
    pub(crate) fn object(&self) -> VideoObject {
        let retry =
            RetryConfig { max_retries: 1, retry_timeout: Duration::from_secs(2), ..RetryConfig::default() };
        let store = HttpBuilder::new()
            .with_url(format!("http://{}", self.address))
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_retry(retry)
            .build()
            .unwrap();
        let uri = VideoUri::parse(&format!("http://{}/clip.mp4?signature=secret", self.address)).unwrap();
        VideoObject { store: Arc::new(store), path: Path::from("clip.mp4"), uri }
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Forgets the requests so far and gives their number and bytes.
    pub(crate) fn take(&self) -> (usize, u64) {
        let asked = std::mem::take(&mut *self.state.asked.lock().unwrap());
        (asked.len(), asked.iter().map(|asked| asked.range.end - asked.range.start).sum())
    }

    pub(crate) fn object_bytes(&self) -> u64 {
        self.state.bytes.len() as u64
    }
}

async fn serve(State(object): State<Arc<Object>>, method: Method, headers: HeaderMap) -> Response<Body> {
    let fault = *object.fault.lock().unwrap();
    let size = object.bytes.len() as u64;
    let range = headers.get(header::RANGE).and_then(|value| parse(value, size));
    let range = range.filter(|_| fault != Fault::NoRanges);
    let served = range.clone().unwrap_or(0..size);
    object.asked.lock().unwrap().push(Asked { method: method.clone(), range: served.clone() });
    let plain = |status: StatusCode| Response::builder().status(status).body(Body::from("no")).unwrap();
    if method != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    match fault {
        Fault::Status(status) => return plain(StatusCode::from_u16(status).unwrap()),
        Fault::Slow(delay) => tokio::time::sleep(delay).await,
        _ => {}
    }
    if served.start >= size {
        return plain(StatusCode::RANGE_NOT_SATISFIABLE);
    }
    let etag = if fault == Fault::Changed { "\"two\"" } else { "\"one\"" };
    let mut answer = Response::builder()
        .header(header::ETAG, etag)
        .header(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT")
        .header(header::CONTENT_LENGTH, served.end - served.start);
    if range.is_some() {
        let value = format!("bytes {}-{}/{size}", served.start, served.end - 1);
        answer = answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, value);
    }
    let body = object.bytes.slice(served.start as usize..served.end as usize);
    answer.body(spoiled(body, fault)).unwrap()
}

/// The body, whole or half.
fn spoiled(body: Bytes, fault: Fault) -> Body {
    use futures::{StreamExt, stream};
    let half = Ok(body.slice(..body.len() / 2));
    match fault {
        Fault::Cut => Body::from_stream(stream::iter([half, Err(std::io::Error::other("cut"))])),
        Fault::Stall => Body::from_stream(stream::iter([half]).chain(stream::pending())),
        _ => Body::from(body),
    }
}

/// `bytes=a-b`, `bytes=a-` and `bytes=-n`.
fn parse(value: &HeaderValue, size: u64) -> Option<Range<u64>> {
    let (from, to) = value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) => Some(from.min(size)..(to + 1).min(size)),
        (Ok(from), Err(_)) => Some(from.min(size)..size),
        (Err(_), Ok(last)) => Some(size.saturating_sub(last)..size),
        _ => None,
    }
}
