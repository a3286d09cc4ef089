//! What the jobs of one process share, and the crew of tasks that runs them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use spectemp_store::{Claimed, Store, StoreError};
use spectemp_types::VideoUri;
use tokio::{sync::mpsc::UnboundedSender, task::JoinSet};

use crate::{
    error::{JobError, Patience},
    event::Event,
    figures,
    hold::{Hold, Kept},
    job::RunningJob,
    runner::{Models, Options, Stop},
    shelf::Shelf,
};

/// Between two tries to write while the ledger is away.
const WRITE_AGAIN: Duration = Duration::from_millis(250);

/// Tries after errors of the ledger that may pass or not.
const MOST_UNCLEAR: u32 = 20;

/// What jobs share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) models: Models,
    pub(crate) options: Options,
    /// No wait after a passing fault is longer.
    pub(crate) longest_wait: Duration,
    pub(crate) patience: Patience,
    pub(crate) shelf: Shelf,
    pub(crate) stop: Stop,
    /// Where somebody listens.
    pub(crate) events: Option<UnboundedSender<Event>>,
}

impl Shared {
    pub(crate) fn tell(&self, event: Event) {
        figures::count(&event);
        if let Some(events) = &self.events {
            // Nobody has to listen.
            let _ = events.send(event);
        }
    }
}

/// Writes, and on a server again and again while the ledger is away, for as long as the lease is ours.
pub(crate) async fn patiently<F>(
    shared: &Shared,
    hold: &Hold,
    mut write: impl FnMut() -> F,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let mut unclear = 0;
    loop {
        // A server that neither answers nor hangs up must not keep a session for longer than its lease.
        let written = tokio::select! {
            biased;
            written = write() => written,
            () = hold.lost() => Err(hold.stale()),
        };
        let error = match written {
            Err(error) if error.is_passing() && shared.patience == Patience::PutBack => error,
            // A server or a proxy that goes down says all kinds of things.
            Err(error @ StoreError::Database { .. })
                if unclear < MOST_UNCLEAR && shared.patience == Patience::PutBack =>
            {
                unclear += 1;
                error
            }
            result => return result,
        };
        tokio::select! {
            () = tokio::time::sleep(WRITE_AGAIN) => {}
            () = hold.cancel().cancelled() => return Err(error),
        }
    }
}

/// The jobs that run now, each in a task of its own.
pub(crate) struct Crew {
    pub(crate) shared: Arc<Shared>,
    tasks: JoinSet<(VideoUri, Result<(), JobError>)>,
    /// Running jobs per video.
    videos: HashMap<String, usize>,
    /// The video of the job that ended or was started last: its bytes and frames are at hand.
    pub(crate) last: Option<VideoUri>,
}

impl Crew {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tasks: JoinSet::new(), videos: HashMap::new(), last: None }
    }

    /// How many run.
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Starts a job. `video` is its URI as the user gave it.
    pub(crate) fn start(&mut self, claimed: Claimed, video: VideoUri, hold: Hold, kept: Option<Kept>) {
        let mut spec = claimed.job.spec.clone();
        spec.video = video.clone();
        *self.videos.entry(video.expose().to_owned()).or_default() += 1;
        self.last = Some(video.clone());
        let job = RunningJob::new(self.shared.clone(), claimed, spec, hold, kept);
        self.tasks.spawn(async move { (video, job.run().await) });
        figures::running(self.tasks.len());
    }

    /// The end of the next job that ends; `None` where none runs.
    pub(crate) async fn next_end(&mut self) -> Option<Result<(), JobError>> {
        let joined = self.tasks.join_next().await?;
        figures::running(self.tasks.len());
        Some(match joined {
            Ok((video, result)) => {
                if let Some(running) = self.videos.get_mut(video.expose()) {
                    *running = running.saturating_sub(1);
                }
                self.last = Some(video);
                result
            }
            Err(cause) => Err(JobError::Permanent(format!("a job's task failed: {cause}"))),
        })
    }

    /// Closes the videos that no job runs on. Called after a claim only: the jobs just claimed may be about a video
    /// whose last job has just ended.
    pub(crate) async fn close_videos(&mut self) -> Result<(), JobError> {
        self.videos.retain(|_, running| *running > 0);
        let wanted: HashSet<String> = self.videos.keys().cloned().collect();
        self.shared.shelf.keep_only(&wanted).await
    }
}
