//! A worker of a fleet: claims jobs of any batch for a time, runs many of them at once and gives up nothing when the
//! ledger, the objects or the doorbell are away for a while.
//!
//! What it holds it holds by leases. Each is prolonged long before it ends; one that could not be stops its session
//! (see `hold.rs`). The worker looks for jobs whenever somebody rings, whenever one of its own ends, and now and then:
//! a ring that is lost costs time only.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use spectemp_queue::{Doorbell, Woken};
use spectemp_store::{Claim, Locations, Store};
use spectemp_video::{BlockCache, OpenOptions};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{JobError, Patience, WorkerError},
    event::Event,
    hold::{Hold, Leases},
    runner::{Models, Options, Stop},
    shared::{Crew, Shared},
    shelf::Shelf,
};

/// Waits between claims while the ledger is away.
const CLAIM_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// What is left to sessions that were told to stop at once.
const LAST_MOMENTS: Duration = Duration::from_secs(3);

/// How a worker goes about it.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Its name in the ledger: another one for each start of a process.
    pub name: String,
    /// Jobs that run at once.
    pub concurrency: usize,
    /// Most jobs on one video that are claimed together.
    pub siblings: usize,
    /// How long a lease holds without a heartbeat.
    pub lease: Duration,
    /// The time between heartbeats; less than half of the lease.
    pub heartbeat: Duration,
    /// How long a round under way may go on after `stop.soft`.
    pub grace: Duration,
    /// How often the ledger is looked at where nobody rings.
    pub poll: Duration,
    /// Times that a job is put back after passing faults in a row, before it fails.
    pub retries: u32,
    /// The wait after the first of them; it doubles with each.
    pub first_wait: Duration,
    /// No such wait is longer.
    pub longest_wait: Duration,
    /// How videos are opened. Its caches are shared by all of them.
    pub open: OpenOptions,
    /// The cache of byte blocks for videos that do not lie on this machine, with a disk tier for example.
    pub remote_blocks: Option<Arc<BlockCache>>,
}

impl WorkerOptions {
    /// The usual settings with leases of `lease`, for a worker called `name`.
    pub fn new(name: impl Into<String>, lease: Duration) -> Self {
        Self {
            name: name.into(),
            concurrency: 4,
            siblings: 4,
            lease,
            heartbeat: lease / 4,
            grace: Duration::from_secs(60),
            poll: Duration::from_secs(5),
            retries: 8,
            first_wait: Duration::from_secs(2),
            longest_wait: Duration::from_secs(600),
            open: OpenOptions::default(),
            remote_blocks: None,
        }
    }
}

/// Everything that a worker works with.
#[derive(Clone)]
pub struct Worker {
    /// Ledger and objects.
    pub store: Store,
    /// Which locations may be opened.
    pub locations: Arc<Locations>,
    /// The models.
    pub models: Models,
    /// Rings when there may be something to do.
    pub doorbell: Doorbell,
    /// How it goes about it.
    pub options: WorkerOptions,
    /// Told what happens, where somebody listens.
    pub events: Option<UnboundedSender<Event>>,
}

impl Worker {
    /// Works until `stop`. After `stop.soft` the rounds under way are finished, committed and their jobs given back,
    /// within the grace time; what is not done then is dropped, as after `stop.hard`, and given back too. Nothing
    /// committed is lost either way.
    ///
    /// # Errors
    /// [`WorkerError::Options`]. A ledger that is away is no error: the worker waits for it.
    pub async fn run(self, stop: Stop) -> Result<(), WorkerError> {
        self.options.check()?;
        let leases = Arc::new(Leases::new(self.options.lease));
        let (ledger, every) = (self.store.ledger().clone(), self.options.heartbeat);
        let crew = Crew::new(Arc::new(self.shared(&stop)));
        let fleet = Fleet { crew, leases: leases.clone(), doorbell: self.doorbell, options: self.options };
        // Heartbeats go on until the last session has ended.
        tokio::select! {
            () = fleet.work(stop) => Ok(()),
            () = leases.beat(&ledger, every) => Ok(()),
        }
    }

    fn shared(&self, stop: &Stop) -> Shared {
        let own = &self.options;
        let options = Options {
            concurrency: own.concurrency,
            retries: own.retries,
            first_wait: own.first_wait,
            open: own.open.clone(),
            remote_blocks: own.remote_blocks.clone(),
        };
        Shared {
            store: self.store.clone(),
            models: self.models.clone(),
            shelf: Shelf::new(self.store.ledger().clone(), self.locations.clone(), options.clone()),
            options,
            longest_wait: own.longest_wait,
            patience: Patience::PutBack,
            stop: stop.clone(),
            events: self.events.clone(),
        }
    }
}

impl WorkerOptions {
    fn check(&self) -> Result<(), WorkerError> {
        let fail = |cause: &str| Err(WorkerError::Options(cause.to_owned()));
        if self.lease < Duration::from_secs(1) {
            return fail("a lease must last a second at least");
        }
        if self.heartbeat.is_zero() || self.heartbeat > self.lease / 2 {
            return fail("heartbeats must come at least twice in the time of a lease");
        }
        if self.poll.is_zero() {
            return fail("the time between looks into the ledger must not be zero");
        }
        Ok(())
    }
}

/// A worker at work.
struct Fleet {
    crew: Crew,
    leases: Arc<Leases>,
    doorbell: Doorbell,
    options: WorkerOptions,
}

/// What a look for jobs came to.
enum Found {
    /// As many as may run do.
    Full,
    /// Fewer, and no other one waits.
    All,
}

impl Fleet {
    async fn work(mut self, stop: Stop) {
        let mut away = None;
        while !stop.soft.is_cancelled() {
            let wait = match self.start_jobs().await {
                Ok(Found::Full) => None,
                Ok(Found::All) => Some(self.options.poll),
                Err(error) => {
                    let wait = away.map_or(CLAIM_AGAIN.0, |wait: Duration| (wait * 2).min(CLAIM_AGAIN.1));
                    tracing::warn!(error = %error, wait_ms = wait.as_millis() as u64, "no jobs can be claimed");
                    away = Some(wait);
                    self.rest(wait, &stop.soft).await;
                    continue;
                }
            };
            away = None;
            self.wait(wait, &stop.soft).await;
        }
        self.end(stop).await;
    }

    /// Claims and starts jobs until enough run or none waits.
    async fn start_jobs(&mut self) -> Result<Found, JobError> {
        let shared = self.crew.shared.clone();
        let concurrency = self.options.concurrency.max(1);
        while self.crew.len() < concurrency && !shared.stop.soft.is_cancelled() {
            let limit = (concurrency - self.crew.len()).min(self.options.siblings.max(1));
            let claim = Claim {
                batch: None,
                worker: &self.options.name,
                limit,
                prefer_video: None,
                lease: Some(self.options.lease),
            };
            let asked = Instant::now();
            // Where the claim got through and the word of it did not, the lease ends by itself.
            let claiming = shared.store.ledger().claim(&claim);
            let claimed = tokio::time::timeout(self.options.lease, claiming).await;
            let claimed =
                claimed.map_err(|_| JobError::Permanent("the ledger does not answer".to_owned()))??;
            if claimed.is_empty() {
                return Ok(Found::All);
            }
            for job in claimed {
                let hold = Hold::new(&job.lease, &shared.stop.hard);
                let kept = self.leases.keep(&job.lease, &hold, asked);
                let video = job.job.spec.video.clone();
                self.crew.start(job, video, hold, Some(kept));
            }
            if let Err(error) = self.crew.close_videos().await {
                tracing::warn!(error = %error, "what was learnt of a video cannot be kept");
            }
        }
        // Others may be idle while jobs wait that are one too many for this one.
        self.ring_on();
        Ok(Found::Full)
    }

    fn ring_on(&self) {
        let doorbell = self.doorbell.clone();
        tokio::spawn(async move { doorbell.ring(None).await });
    }

    /// Until a job ends, somebody rings, or `poll` is over; without `poll` rings are left to others.
    async fn wait(&mut self, poll: Option<Duration>, soft: &CancellationToken) {
        let doorbell = self.doorbell.clone();
        let rung = async {
            match poll {
                Some(poll) => doorbell.wait(poll).await,
                None => std::future::pending::<Woken>().await,
            }
        };
        tokio::select! {
            ended = self.crew.next_end(), if self.crew.len() > 0 => note(ended),
            _ = rung => {}
            () = soft.cancelled() => {}
        }
    }

    /// A pause in which jobs may end.
    async fn rest(&mut self, pause: Duration, soft: &CancellationToken) {
        tokio::select! {
            ended = self.crew.next_end(), if self.crew.len() > 0 => note(ended),
            () = tokio::time::sleep(pause) => {}
            () = soft.cancelled() => {}
        }
    }

    /// Lets the sessions come to their end.
    async fn end(mut self, stop: Stop) {
        let ended = tokio::time::timeout(self.options.grace, self.drain()).await;
        if ended.is_err() {
            tracing::warn!(jobs = self.crew.len(), "the grace time is over: rounds under way are dropped");
            stop.hard.cancel();
            let _ = tokio::time::timeout(LAST_MOMENTS, self.drain()).await;
        }
        // What the leases of this worker held waits for others now.
        let _ = self.doorbell.ring(None).await;
    }

    async fn drain(&mut self) {
        while let Some(ended) = self.crew.next_end().await {
            note(Some(ended));
        }
        if let Err(error) = self.crew.close_videos().await {
            tracing::warn!(error = %error, "what was learnt of a video cannot be kept");
        }
    }
}

/// No end of a job ends the worker.
fn note(ended: Option<Result<(), JobError>>) {
    if let Some(Err(error)) = ended {
        tracing::error!(error = %error, "a job ended in a way that it should not");
    }
}
