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
use tokio::{sync::mpsc::UnboundedSender, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{JobError, WorkerError},
    event::Event,
    job::RunningJob,
    shelf::Shelf,
};

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

/// What the jobs of a run share.
pub(crate) struct Shared {
    pub(crate) home: Arc<Home>,
    pub(crate) models: Models,
    pub(crate) options: Options,
    pub(crate) shelf: Shelf,
    pub(crate) stop: Stop,
    events: UnboundedSender<Event>,
}

impl Shared {
    pub(crate) fn tell(&self, event: Event) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }
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
        let shelf = Shelf::new(self.home.ledger().clone(), self.locations.clone(), self.options.clone());
        let (models, options) = (self.models.clone(), self.options.clone());
        let home = self.home.clone();
        let shared = Arc::new(Shared { home, models, options, shelf, stop, events });
        let mut run = Run { shared, work, tasks: JoinSet::new(), videos: HashMap::new(), last: None };
        let ids = run.work.jobs.keys().copied();
        run.shared.home.ledger().hold_others(&run.work.batch, ids).await?;
        run.until_done().await
    }
}

/// A run under way.
struct Run {
    shared: Arc<Shared>,
    work: Work,
    tasks: JoinSet<(VideoUri, Result<(), JobError>)>,
    /// Running jobs per video.
    videos: HashMap<String, usize>,
    /// The video of the job that ended last: its bytes and frames are at hand.
    last: Option<VideoUri>,
}

impl Run {
    async fn until_done(&mut self) -> Result<Ended, WorkerError> {
        let mut failure = None;
        loop {
            if failure.is_none() && !self.shared.stop.soft.is_cancelled() {
                failure = self.start_jobs().await.err();
            }
            let Some(joined) = self.tasks.join_next().await else { break };
            match joined {
                Ok((video, result)) => {
                    self.close_job(video);
                    failure = failure.or(result.err());
                }
                Err(cause) => {
                    failure = failure.or(Some(JobError::Permanent(format!("a job's task failed: {cause}"))))
                }
            }
        }
        failure = failure.or(self.shared.shelf.keep_only(&HashSet::new()).await.err());
        match failure {
            Some(JobError::Store(error)) => Err(error.into()),
            Some(other) => Err(WorkerError::Broken(other.to_string())),
            None if self.shared.stop.soft.is_cancelled() => Ok(Ended::Interrupted),
            None => Ok(Ended::Done),
        }
    }

    /// Claims and starts jobs until enough run or none waits.
    async fn start_jobs(&mut self) -> Result<(), JobError> {
        while self.tasks.len() < self.shared.options.concurrency.max(1) {
            let limit = self.shared.options.concurrency.max(1) - self.tasks.len();
            let worker = format!("process {}", std::process::id());
            let claim = Claim {
                batch: Some(&self.work.batch),
                worker: &worker,
                limit,
                prefer_video: self.last.as_ref(),
                lease: None,
            };
            let claimed = self.shared.home.ledger().claim(&claim).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            for job in claimed {
                self.start(job);
            }
            self.close_videos().await?;
        }
        Ok(())
    }

    fn start(&mut self, claimed: Claimed) {
        // Others are held back: what comes is wanted.
        let video = self.work.jobs.get(&claimed.job.id).unwrap_or(&claimed.job.spec.video).clone();
        let mut spec = claimed.job.spec.clone();
        spec.video = video.clone();
        *self.videos.entry(video.expose().to_owned()).or_default() += 1;
        self.last = Some(video.clone());
        let job = RunningJob::new(self.shared.clone(), claimed, spec);
        self.tasks.spawn(async move { (video, job.run().await) });
    }

    fn close_job(&mut self, video: VideoUri) {
        if let Some(running) = self.videos.get_mut(video.expose()) {
            *running = running.saturating_sub(1);
        }
        self.last = Some(video);
    }

    /// Closes the videos that no job runs on. Called after a claim only: the jobs just claimed may be about a video
    /// whose last job has just ended.
    async fn close_videos(&mut self) -> Result<(), JobError> {
        self.videos.retain(|_, running| *running > 0);
        let wanted = self.videos.keys().cloned().collect();
        self.shared.shelf.keep_only(&wanted).await
    }
}
