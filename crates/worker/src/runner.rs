//! The runner: claims jobs of a batch, a few at a time and those of one video together, and runs them to their end.
//!
//! It stops in two steps. After `soft` every job finishes the round it is in, commits it and is given back; after
//! `hard` the rounds that are under way are dropped. Nothing committed is lost either way.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use spectemp_engine::Vlm;
use spectemp_store::{Claim, Claimed, Home, Locations};
use spectemp_types::{JobId, VideoUri};
use spectemp_video::{BlockCache, OpenOptions};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{JobError, Patience, WorkerError},
    event::Event,
    hold::Hold,
    shared::{Crew, Shared},
    shelf::Shelf,
};

/// No wait after a passing fault is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The models of a run.
#[derive(Clone)]
pub struct Models {
    /// Answers.
    pub target: Arc<dyn Vlm>,
    /// Picks frames; only the strategy `spectemp` asks it.
    pub draft: Option<Arc<dyn Vlm>>,
}

/// How a run goes about it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Jobs that run at once.
    pub concurrency: usize,
    /// Tries of a job after a passing fault, beyond the first; each committed round starts the count again.
    pub retries: u32,
    /// The wait before the first of them; it doubles with each.
    pub first_wait: Duration,
    /// How videos are opened. Its caches are shared by all of them.
    pub open: OpenOptions,
    /// The cache of byte blocks for videos that do not lie on this machine, with a disk tier for example.
    pub remote_blocks: Option<Arc<BlockCache>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 4,
            retries: 4,
            first_wait: Duration::from_secs(1),
            open: OpenOptions::default(),
            remote_blocks: None,
        }
    }
}

/// What stops a run.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Finish the rounds under way, begin no other.
    pub soft: CancellationToken,
    /// Drop the rounds under way. Cancel `soft` too.
    pub hard: CancellationToken,
}

/// Which jobs to run.
#[derive(Clone, Debug)]
pub struct Work {
    /// Their batch.
    pub batch: String,
    /// The jobs, with the URIs of their videos as the user gave them: the ledger leaves signatures out.
    /// Other jobs of the batch are held back.
    pub jobs: HashMap<JobId, VideoUri>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// No job of it waits any more.
    Done,
    /// It was stopped.
    Interrupted,
}

/// Runs jobs.
pub struct Runner {
    home: Arc<Home>,
    locations: Arc<Locations>,
    models: Models,
    options: Options,
}

impl Runner {
    /// A runner over an open home.
    pub fn new(home: Arc<Home>, locations: Arc<Locations>, models: Models, options: Options) -> Self {
        Self { home, locations, models, options }
    }

    /// Runs `work` until none of its jobs waits any more, or until `stop`. What happens is told to `events`.
    ///
    /// # Errors
    /// Where ledger or objects can no longer be written (a full disk): then the jobs that were running have ended as
    /// far as that could still be written, and the others wait in the queue.
    pub async fn run(
        &self,
        work: Work,
        stop: Stop,
        events: UnboundedSender<Event>,
    ) -> Result<Ended, WorkerError> {
        let store = self.home.store().clone();
        let shared = Shared {
            shelf: Shelf::new(store.ledger().clone(), self.locations.clone(), self.options.clone()),
            store,
            models: self.models.clone(),
            options: self.options.clone(),
            longest_wait: LONGEST_WAIT,
            patience: Patience::Wait,
            stop,
            events: Some(events),
        };
        let mut run = Run { crew: Crew::new(Arc::new(shared)), work };
        let ids = run.work.jobs.keys().copied();
        self.home.ledger().hold_others(&run.work.batch, ids).await?;
        run.until_done().await
    }
}

/// A run under way.
struct Run {
    crew: Crew,
    work: Work,
}

impl Run {
    async fn until_done(&mut self) -> Result<Ended, WorkerError> {
        let shared = self.crew.shared.clone();
        let mut failure = None;
        loop {
            if failure.is_none() && !shared.stop.soft.is_cancelled() {
                failure = self.start_jobs().await.err();
            }
            let Some(ended) = self.crew.next_end().await else { break };
            failure = failure.or(ended.err());
        }
        failure = failure.or(shared.shelf.keep_only(&HashSet::new()).await.err());
        match failure {
            Some(JobError::Store(error)) => Err(error.into()),
            Some(other) => Err(WorkerError::Broken(other.to_string())),
            None if shared.stop.soft.is_cancelled() => Ok(Ended::Interrupted),
            None => Ok(Ended::Done),
        }
    }

    /// Claims and starts jobs until enough run or none waits.
    async fn start_jobs(&mut self) -> Result<(), JobError> {
        let shared = self.crew.shared.clone();
        let concurrency = shared.options.concurrency.max(1);
        while self.crew.len() < concurrency {
            let worker = format!("process {}", std::process::id());
            let claim = Claim {
                batch: Some(&self.work.batch),
                worker: &worker,
                limit: concurrency - self.crew.len(),
                prefer_video: self.crew.last.as_ref(),
                lease: None,
            };
            let claimed = shared.store.ledger().claim(&claim).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            for job in claimed {
                self.start(job);
            }
            self.crew.close_videos().await?;
        }
        Ok(())
    }

    fn start(&mut self, claimed: Claimed) {
        // Others are held back: what comes is wanted.
        let video = self.work.jobs.get(&claimed.job.id).unwrap_or(&claimed.job.spec.video).clone();
        let hold = Hold::new(&claimed.lease, &self.crew.shared.stop.hard);
        self.crew.start(claimed, video, hold, None);
    }
}
