//! Housekeeping: tasks that somebody must do now and then, as apalis workers, on a cron by apalis-cron.
//!
//! Every process that runs tasks also runs the cron; of all that tick at the same time one sends. A task that is lost
//! with its process comes again at its next tick. While Redis is gone every process does for itself what is due: each
//! task looks into the ledger and may run twice.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use apalis::prelude::{WorkerBuilder, WorkerBuilderExt as _};
use apalis_cron::{CronScheduler, Tick};
use futures::{
    FutureExt as _,
    future::{BoxFuture, join, join_all},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Cron, Doorbell, QueueError, Task,
    list::{How, List},
};

/// Tasks that one process works on at the same time.
const CONCURRENCY: usize = 4;
/// Before a worker that has ended is started again.
const PAUSE: Duration = Duration::from_millis(500);

/// The list of tasks. Clones are the same list.
#[derive(Clone)]
pub struct Housekeeping {
    list: List<Task>,
    // Open for as long as there is a list.
    _gate: Arc<watch::Sender<bool>>,
}

impl Housekeeping {
    /// Tasks beside `doorbell`: in its Redis, or in this process.
    pub fn beside(doorbell: &Doorbell) -> Self {
        let gate = watch::Sender::new(true);
        let list = match doorbell.link() {
            Some(link) => List::redis(link.clone(), "tasks", gate.subscribe()),
            None => List::memory(gate.subscribe()),
        };
        Self { list, _gate: Arc::new(gate) }
    }

    /// Has `task` done soon, by any process, unless it waits to be done already.
    ///
    /// # Errors
    /// [`QueueError::Down`]: then it waits for its next tick.
    pub async fn push(&self, task: Task) -> Result<(), QueueError> {
        self.list.send(&task, How::Once).await
    }

    /// Does tasks with `handler`, and sends those of `schedule` when they are due, until `stop`. Tasks under way are
    /// finished: drop the future to drop them.
    ///
    /// A failure is the handler's to log; the task comes again with its next tick.
    pub fn run<H, F>(
        &self,
        handler: H,
        schedule: Vec<(Cron, Task)>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()>
    where
        H: Fn(Task) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let handler: Handler = Arc::new(move |task| {
            let handler = handler.clone();
            guarded(task.name(), async move { handler(task).await }).boxed()
        });
        let crons = schedule.into_iter().map(|(cron, task)| {
            let ticking = Ticking { list: self.list.clone(), task, handler: handler.clone() };
            ticking.run(cron, stop.clone()).boxed()
        });
        let (crons, work) = (join_all(crons), self.clone().work(handler.clone(), stop.clone()).boxed());
        join(work, crons).map(|_| ()).boxed()
    }

    async fn work(self, handler: Handler, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let Ok(backend) = self.list.backend() else { return };
            let handler = handler.clone();
            let worker = WorkerBuilder::new(unique("tasks"))
                .backend(backend)
                .concurrency(CONCURRENCY)
                .build(move |task: Task| handler(task));
            again("tasks", worker.run_until(stopped(&stop)).boxed().await, &stop).await;
        }
    }
}

type Handler = Arc<dyn Fn(Task) -> BoxFuture<'static, ()> + Send + Sync>;

/// One line of the schedule.
#[derive(Clone)]
struct Ticking {
    list: List<Task>,
    task: Task,
    handler: Handler,
}

impl Ticking {
    async fn run(self, cron: Cron, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let ticking = self.clone();
            let worker = WorkerBuilder::new(unique("cron"))
                .backend(CronScheduler::new(cron.schedule.clone()))
                .build(move |tick: Tick| ticking.clone().send(tick.get_timestamp()).boxed());
            again("cron", worker.run_until(stopped(&stop)).boxed().await, &stop).await;
        }
    }

    async fn send(self, at: u64) {
        let name = format!("{}:{at}", self.task.key());
        if self.list.send(&self.task, How::Tick(&name)).await.is_err() {
            (self.handler)(self.task).await;
        }
    }
}

/// A name that no other worker has or had: apalis takes a known one for the same worker.
fn unique(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::now_v7())
}

fn stopped(stop: &CancellationToken) -> impl Future<Output = Result<(), std::io::Error>> + Send + 'static {
    let stop = stop.clone();
    async move {
        stop.cancelled().await;
        Ok(())
    }
}

/// An apalis worker may end, with or without an error, long before it is told to.
async fn again<E: std::fmt::Debug>(what: &'static str, ended: Result<(), E>, stop: &CancellationToken) {
    if stop.is_cancelled() {
        return;
    }
    tracing::warn!(error = ?ended.err(), worker.kind = what, "a housekeeping worker starts again");
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => {}
        () = stop.cancelled() => {}
    }
}

/// A bug that panics in one task must not end the others.
async fn guarded(name: &'static str, doing: impl Future<Output = ()>) {
    if AssertUnwindSafe(doing).catch_unwind().await.is_err() {
        tracing::error!(task = name, "a housekeeping task panicked");
    }
}
