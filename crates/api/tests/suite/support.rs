//! A server on a free port, its ledger at hand, and a client.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use spectemp_api::{AppState, Settings};
use spectemp_queue::Doorbell;
use spectemp_store::{
    AllowList, Claim, Claimed, Ledger, LedgerOptions, LocationOptions, Locations, MigrateOptions, Objects,
    Role, Store, migrate,
};
use spectemp_types::{Answer, Evidence, JobId, Round, Totals, Trace};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A running server.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) store: Store,
    pub(crate) doorbell: Doorbell,
    pub(crate) dir: Arc<TempDir>,
    settings: Settings,
    client: reqwest::Client,
    key: Option<String>,
    serving: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An answer of the server.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: header::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|cause| panic!("{cause}: {self:?}"))
    }

    /// The body of an answer with this status.
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self.json()
    }

    /// The problem of an answer with this status, its form checked.
    pub(crate) fn problem(self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:spectemp:problem:{kind}"), "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["request_id"], self.headers["x-request-id"].to_str().unwrap(), "{problem}");
        for field in ["title", "detail", "instance"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem
    }
}

/// Over SQLite, open to the machine.
pub(crate) async fn open() -> Server {
    with(Settings { open: true, private_webhooks: true, ..Settings::default() }).await
}

/// Over SQLite with these settings.
pub(crate) async fn with(settings: Settings) -> Server {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&dir.path().join("ledger.sqlite"), &LedgerOptions::default()).await.unwrap();
    start(dir, ledger, settings).await
}

/// Over a new database of the tests' Postgres.
pub(crate) async fn postgres(settings: Settings) -> Server {
    let url = std::env::var("SPECTEMP_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "SPECTEMP_TEST_POSTGRES is not set: run `make test`, or `eval \"$(scripts/services.sh start)\"`"
        )
    });
    let name = format!("api_{}", JobId::new().as_uuid().simple());
    let (server, _) = url.rsplit_once('/').unwrap();
    psql(&url, &format!("create database {name}"));
    let url = format!("{server}/{name}");
    migrate(&url, &MigrateOptions { reader_password: Some("reader".to_owned()) }).await.unwrap();
    let reader = url.split_once('@').map_or(url.as_str(), |(_, host)| host);
    let reader = format!("postgres://spectemp_reader:reader@{}", reader.trim_start_matches("postgres://"));
    let options = LedgerOptions { reader_url: Some(reader), connections: 4, ..LedgerOptions::default() };
    let ledger = Ledger::connect(&url, &options).await.unwrap();
    start(TempDir::new().unwrap(), ledger, settings).await
}

fn psql(url: &str, statement: &str) {
    let done = std::process::Command::new("psql").args([url, "-qc", statement]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

async fn start(dir: TempDir, ledger: Ledger, settings: Settings) -> Server {
    std::fs::create_dir_all(dir.path().join("videos")).unwrap();
    std::fs::create_dir_all(dir.path().join("objects")).unwrap();
    let objects = object_store::local::LocalFileSystem::new_with_prefix(dir.path().join("objects")).unwrap();
    let store = Store::new(ledger, Objects::over(Arc::new(objects)));
    serve(Arc::new(dir), store, settings, &[]).await
}

async fn serve(dir: Arc<TempDir>, store: Store, settings: Settings, allow: &[&str]) -> Server {
    let videos = dir.path().join("videos");
    let locations = Locations::with_environment(LocationOptions::default(), []);
    let usual = [videos.to_str().unwrap(), "s3://videos/in/", "https://media.example/archive/"];
    let list = AllowList::parse(usual.iter().chain(allow));
    let locations = Arc::new(locations.allow(list.unwrap()));
    let (doorbell, stop) = (Doorbell::memory(), CancellationToken::new());
    let state = AppState::new(store.clone(), locations, doorbell.clone(), settings.clone(), stop.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(spectemp_api::serve(listener, state, stop.clone()));
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(120)).build().unwrap();
    Server { url, store, doorbell, dir, settings, client, key: None, serving, stop }
}

impl Server {
    /// Another server over the same ledger, which may open `allow`, too.
    pub(crate) async fn beside(&self, allow: &str) -> Self {
        serve(self.dir.clone(), self.store.clone(), self.settings.clone(), &[allow]).await
    }

    /// Ends it at once, wherever it is, as a dying process does.
    pub(crate) async fn kill(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// Ends it as a process that is told to stop.
    pub(crate) async fn end(&mut self) {
        self.stop.cancel();
        (&mut self.serving).await.unwrap().unwrap();
    }

    /// The same server for another caller.
    pub(crate) async fn caller(&self, tenant: &str, role: Role) -> Caller<'_> {
        let key = self.store.ledger().create_key(tenant, role, "test").await.unwrap();
        Caller { server: self, key: key.secret }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn lines(&self, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/x-ndjson");
        send(request.body(body)).await
    }

    /// A video that the server may open, and that is there.
    pub(crate) fn video(&self, name: &str) -> String {
        let path = self.dir.path().join("videos").join(name);
        std::fs::write(&path, "no video").unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Claims the next job, as a worker does.
    pub(crate) async fn claim(&self) -> Claimed {
        let claim = Claim {
            batch: None,
            worker: "test worker",
            limit: 1,
            prefer_video: None,
            lease: Some(Duration::from_secs(60)),
        };
        self.store.ledger().claim(&claim).await.unwrap().pop().unwrap()
    }

    /// Claims the next job and answers it after one round.
    pub(crate) async fn answer_next(&self, text: &str) -> JobId {
        let claimed = self.claim().await;
        let id = claimed.job.id;
        self.store.ledger().checkpoint(&claimed.lease, &round(0, text)).await.unwrap();
        let trace = trace(&claimed, text);
        self.store.finish(claimed.lease, &trace).await.unwrap();
        id
    }
}

/// A caller with a key.
pub(crate) struct Caller<'a> {
    server: &'a Server,
    pub(crate) key: String,
}

impl Caller<'_> {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.server.request(method, path).bearer_auth(&self.key)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn lines(&self, path: &str, body: String) -> Reply {
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/x-ndjson");
        send(request.body(body)).await
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    Reply { status, headers, text: response.text().await.unwrap() }
}

/// A job about an allowed video that nobody opens.
pub(crate) fn job(id: &str) -> Value {
    json!({"id": id, "video": "s3://videos/in/a.mp4", "question": "What is seen?"})
}

/// `n` lines.
pub(crate) fn lines(n: usize) -> String {
    (0..n).map(|no| format!("{}\n", job(&format!("q{no}")))).collect()
}

pub(crate) fn round(no: u32, text: &str) -> Round {
    serde_json::from_value(json!({
        "version": 1,
        "no": no,
        "span": {"start_s": 0.0, "end_s": 10.0},
        "frames": [{"requested_s": 5.0, "pts_s": 5.0, "stream_pts_s": 5.0, "keyframe": true, "label": "5.0s"}],
        "chosen_by": "uniform",
        "turns": [],
        "verdict": {"kind": "answer", "text": text, "confidence": 0.75},
        "io": {"requests": 1, "bytes": 10, "decoded_frames": 1},
        "times": {"fetch_ms": 1.0, "decode_ms": 1.0, "vision_ms": 1.0, "prefill_ms": 1.0, "generate_ms": 1.0},
    }))
    .unwrap()
}

fn trace(claimed: &Claimed, text: &str) -> Trace {
    let model = json!({"name": "target", "revision": "r1"});
    let rounds = vec![round(0, text)];
    Trace {
        version: Trace::VERSION,
        job_id: claimed.job.id,
        spec: claimed.job.spec.clone(),
        video: serde_json::from_value(json!({
            "uri": claimed.job.spec.video.redacted(), "etag": "e1", "bytes": 10, "duration_s": 10.0, "width": 4, "height": 4
        }))
        .unwrap(),
        target: serde_json::from_value(model).unwrap(),
        draft: None,
        totals: Totals::of(&rounds),
        rounds,
        answer: Answer {
            text: text.to_owned(),
            choice: None,
            confidence: 0.75,
            evidence: vec![Evidence { start_s: 0.0, end_s: 10.0, frames_s: vec![5.0] }],
        },
    }
}
