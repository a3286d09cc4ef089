//! Things that the tests are made of.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use spectemp_engine::{
    Generation, ModelCard, Request, Vlm, VlmError,
    testing::{ScriptedVlm, card},
};
use spectemp_queue::{Doorbell, RedisOptions};
use spectemp_store::{
    DEFAULT_TENANT, Home, Ledger, LedgerOptions, Locations, MigrateOptions, Objects, Store, Submission,
    migrate,
};
use spectemp_types::{JobId, JobSpec, JobStatus, Plan, Question, VideoUri};
use spectemp_video::encode::{EncodeOptions, Encoder, FrameRate};
use spectemp_worker::{Event, Models, Stop, Worker, WorkerError, WorkerOptions};
use sqlx::{Connection as _, PgConnection};
use tokio::{sync::mpsc::unbounded_channel, task::JoinHandle};

pub(crate) const SEGMENT: &str = "<think>a</think><segment>(2, 6)</segment>";
pub(crate) const OTHER_SEGMENT: &str = "<think>b</think><segment>(5, 9)</segment>";
pub(crate) const ANSWER: &str = "<think>c</think><answer>seven</answer>";
pub(crate) const PICK: &str = "<think>d</think><frame>[3, 4]</frame>";

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A video of twelve seconds at two frames a second, all of one colour.
    pub(crate) fn video(&self, name: &str, level: u8) -> PathBuf {
        let path = self.dir.path().join(name);
        let options = EncodeOptions { fps: FrameRate::whole(2), ..EncodeOptions::default() };
        let mut encoder = Encoder::create(&path, 64, 64, &options).unwrap();
        let frame = vec![level; 64 * 64 * 3];
        (0..24).for_each(|_| encoder.push(&frame).unwrap());
        encoder.finish().unwrap();
        path
    }

    pub(crate) async fn home(&self) -> Arc<Home> {
        Arc::new(Home::open(&self.dir.path().join("home"), true).await.unwrap())
    }
}

pub(crate) fn spec(id: &str, video: &Path, set: &[&str]) -> JobSpec {
    JobSpec {
        id: id.to_owned(),
        video: VideoUri::parse(video.to_str().unwrap()).unwrap(),
        question: Question::new(format!("What about {id}?"), Vec::new()).unwrap(),
        plan: Plan::named("paper16").unwrap().set_all(set.iter().copied()).unwrap(),
    }
}

pub(crate) fn lines(lines: &[&str]) -> Models {
    let target = Arc::new(ScriptedVlm::lines(card("target"), lines));
    Models { target, draft: Some(Arc::new(ScriptedVlm::lines(card("draft"), &[PICK]))) }
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `make test`, or `eval \"$(scripts/services.sh start)\"`")
    })
}

/// A database of one's own on the Postgres of the tests.
pub(crate) async fn database() -> String {
    let server = variable("SPECTEMP_TEST_POSTGRES");
    let name = format!("worker_{}", JobId::new().to_string().replace('-', ""));
    let mut connection = PgConnection::connect(&server).await.unwrap();
    let create = sqlx::AssertSqlSafe(format!("create database {name}"));
    sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    migrate(&url, &MigrateOptions::default()).await.unwrap();
    url
}

/// A doorbell on the Redis of the tests, under a prefix of one's own.
pub(crate) fn doorbell(prefix: &str) -> Doorbell {
    Doorbell::redis(&variable("SPECTEMP_TEST_REDIS"), RedisOptions { prefix: prefix.to_owned() }).unwrap()
}

/// A cluster without workers: Postgres, a folder of objects, Redis.
pub(crate) struct Cluster {
    pub(crate) place: Place,
    pub(crate) url: String,
    pub(crate) store: Store,
    prefix: String,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        let (place, url) = (Place::new(), database().await);
        let store = connect(&url, &place).await;
        Self { place, url, store, prefix: format!("test-{}", JobId::new()) }
    }

    pub(crate) fn doorbell(&self) -> Doorbell {
        doorbell(&self.prefix)
    }

    /// A worker with short times, over connections of its own.
    pub(crate) async fn worker(&self, models: Models) -> Worker {
        self.worker_at(&self.url, models).await
    }

    pub(crate) async fn worker_at(&self, url: &str, models: Models) -> Worker {
        let options = WorkerOptions {
            grace: millis(10_000),
            poll: millis(500),
            first_wait: millis(50),
            ..WorkerOptions::new(JobId::new().to_string(), millis(3_000))
        };
        Worker {
            store: connect(url, &self.place).await,
            locations: Arc::new(Locations::default()),
            models,
            doorbell: self.doorbell(),
            options,
            events: None,
        }
    }

    pub(crate) async fn submit(&self, specs: &[JobSpec]) -> Vec<JobId> {
        let id = |submission| match submission {
            Submission::New(job) | Submission::Existing { job, .. } => job,
            Submission::Conflict(conflict) => panic!("{conflict}"),
        };
        let submitted = self.store.ledger().submit("batch", specs).await.unwrap();
        submitted.into_iter().map(id).collect()
    }

    pub(crate) async fn status(&self, job: JobId) -> JobStatus {
        self.store.ledger().job(job).await.unwrap().status
    }

    /// Waits until `count` jobs of the tenant are answered.
    pub(crate) async fn until_answered(&self, count: u64) {
        let started = Instant::now();
        loop {
            let counts = self.store.ledger().counts_of(Some(DEFAULT_TENANT), None).await.unwrap();
            if counts.answered >= count {
                return;
            }
            assert!(started.elapsed() < millis(30_000), "{counts:?}");
            tokio::time::sleep(millis(20)).await;
        }
    }

    /// Runs a statement as the owner of the ledger.
    pub(crate) async fn sql(&self, statement: String) -> u64 {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap().rows_affected()
    }
}

async fn connect(url: &str, place: &Place) -> Store {
    let options = LedgerOptions { connections: 4, ..LedgerOptions::default() };
    let ledger = Ledger::connect(url, &options).await.unwrap();
    let folder = place.dir.path().join("objects");
    std::fs::create_dir_all(&folder).unwrap();
    let prefix = VideoUri::parse(folder.to_str().unwrap()).unwrap();
    Store::new(ledger, Objects::at(&prefix, &Locations::default()).unwrap())
}

/// A worker that runs, and what it tells.
pub(crate) struct Running {
    pub(crate) stop: Stop,
    pub(crate) events: tokio::sync::mpsc::UnboundedReceiver<Event>,
    pub(crate) task: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    pub(crate) fn start(mut worker: Worker) -> Self {
        let (sender, events) = unbounded_channel();
        worker.events = Some(sender);
        let stop = Stop::default();
        let task = tokio::spawn(worker.run(stop.clone()));
        Self { stop, events, task }
    }

    /// The first event that `wanted` picks.
    pub(crate) async fn until<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the worker has ended");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(millis(20_000), search).await.expect("the event did not come")
    }

    /// Stops it softly; how long that took.
    pub(crate) async fn stop(self) -> Duration {
        let started = Instant::now();
        self.stop.soft.cancel();
        tokio::time::timeout(millis(20_000), self.task).await.unwrap().unwrap().unwrap();
        started.elapsed()
    }
}

/// A target whose first `stuck` generations wait until they are cancelled.
pub(crate) struct Stuck {
    inner: ScriptedVlm,
    left: AtomicUsize,
    /// Told when one begins to wait.
    pub(crate) begun: tokio::sync::Notify,
    /// When one was cancelled last.
    pub(crate) cancelled: std::sync::Mutex<Option<Instant>>,
}

impl Stuck {
    pub(crate) fn new(stuck: usize, text: &[&str]) -> Arc<Self> {
        let inner = ScriptedVlm::lines(card("target"), text);
        Arc::new(Self {
            inner,
            left: AtomicUsize::new(stuck),
            begun: Default::default(),
            cancelled: Default::default(),
        })
    }
}

#[async_trait]
impl Vlm for Stuck {
    fn card(&self) -> &ModelCard {
        self.inner.card()
    }

    async fn generate(&self, request: Request) -> Result<Generation, VlmError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            self.begun.notify_one();
            request.cancel.cancelled().await;
            *self.cancelled.lock().unwrap() = Some(Instant::now());
            return Err(VlmError::Cancelled);
        }
        self.inner.generate(request).await
    }
}

/// A model that takes its time.
pub(crate) struct Slow {
    inner: ScriptedVlm,
    takes: Duration,
    /// Generations begun.
    pub(crate) begun: AtomicUsize,
}

impl Slow {
    pub(crate) fn new(takes: Duration, text: &[&str]) -> Arc<Self> {
        let inner = ScriptedVlm::lines(card("target"), text);
        Arc::new(Self { inner, takes, begun: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Vlm for Slow {
    fn card(&self) -> &ModelCard {
        self.inner.card()
    }

    async fn generate(&self, request: Request) -> Result<Generation, VlmError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.takes).await;
        self.inner.generate(request).await
    }
}
