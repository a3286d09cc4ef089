//! An S3 server in the test's own process, which fails and stalls when told to.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::{Request, Response, body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{
    Body, HttpError,
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::{net::TcpListener, runtime::Runtime};

/// How long a request hangs that stalls.
const STALL: Duration = Duration::from_secs(4);

/// What goes wrong, in requests per thousand.
#[derive(Default)]
struct Faults {
    errors: AtomicU32,
    stalls: AtomicU32,
    requests: AtomicU64,
    failed: AtomicU64,
    stalled: AtomicU64,
}

/// The server; buckets are folders of its root, objects are files in them.
pub(crate) struct S3Server {
    endpoint: String,
    faults: Arc<Faults>,
    _runtime: Runtime,
}

impl S3Server {
    pub(crate) fn start(root: &Path) -> Self {
        let mut service = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
        service.set_auth(SimpleAuth::from_single("AKTEST", "SKTEST"));
        let faults = Arc::new(Faults::default());
        let service = Faulty { inner: service.build(), faults: faults.clone() };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    // A client that was killed is no error here.
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { endpoint, faults, _runtime: runtime }
    }

    /// The environment of a process that uses it.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", "AKTEST"),
            ("AWS_SECRET_ACCESS_KEY", "SKTEST"),
            ("AWS_REGION", "eu-west-1"),
        ]
    }

    /// From now on so many of a thousand requests are answered with an error, or late.
    pub(crate) fn misbehave(&self, errors: u32, stalls: u32) {
        self.faults.errors.store(errors, Ordering::Relaxed);
        self.faults.stalls.store(stalls, Ordering::Relaxed);
    }

    /// Requests, errors and stalls so far.
    pub(crate) fn figures(&self) -> (u64, u64, u64) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&self.faults.requests), of(&self.faults.failed), of(&self.faults.stalled))
    }
}

#[derive(Clone)]
struct Faulty {
    inner: S3Service,
    faults: Arc<Faults>,
}

impl Faulty {
    /// One of the faults, evenly spread over the requests.
    fn hits(&self, request: u64, per_thousand: &AtomicU32) -> bool {
        let rate = u64::from(per_thousand.load(Ordering::Relaxed));
        (request + 1) * rate / 1000 > request * rate / 1000
    }
}

impl Service<Request<Incoming>> for Faulty {
    type Response = Response<Body>;
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let number = this.faults.requests.fetch_add(1, Ordering::Relaxed);
            if this.hits(number, &this.faults.stalls) {
                this.faults.stalled.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(STALL).await;
            }
            if this.hits(number, &this.faults.errors) {
                this.faults.failed.fetch_add(1, Ordering::Relaxed);
                let mut answer = Response::new(Body::from("slow down".to_owned()));
                *answer.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
                return Ok(answer);
            }
            Service::call(&this.inner, request).await
        })
    }
}
