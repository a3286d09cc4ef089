//! The housekeeping of a cluster. Every chore looks into the ledger for what is due, so that it may be done twice, by
//! several processes at once, or not at all for a while.

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use spectemp_queue::{Cron, Doorbell, Housekeeping, Task};
use spectemp_store::{
    Batch, BatchExport, Forgotten, IndexFigures, IndexId, Listed, ListingOptions, Locations, PartLimits,
    Store, StoreError, export_batch, listing,
};
use spectemp_types::VideoUri;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{WorkerError, backoff},
    figures,
    webhook::{Caller, WebhookBody},
};

/// Batches that one look takes.
const BATCHES: usize = 8;
/// Rings of one sweep: enough to wake a fleet, few enough to be cheap.
const MOST_RINGS: u64 = 16;
/// The wait after the first failure of an export or a webhook, and the longest one.
const TELL_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// Idempotency keys hold for so long.
const KEEP_REQUESTS: Duration = Duration::from_secs(7 * 24 * 3600);
/// A trace whose row is not written after so long never gets one.
const ORPHAN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Failures after which a webhook is given up: over a day and a half of tries.
const MOST_TELLS: u32 = 40;

/// How the housekeeping goes about it.
#[derive(Clone, Debug)]
pub struct ChoresOptions {
    /// When leases past their time are taken back and waiting jobs are rung for.
    pub sweep: Cron,
    /// When batches that have ended are looked for.
    pub tell: Cron,
    /// When indexes that are due are looked for.
    pub listings: Cron,
    /// When what is past its time is looked for.
    pub retention: Cron,
    /// Jobs are forgotten so long after their end, and objects that nothing points at are deleted; `None`: all are kept.
    pub keep: Option<Duration>,
    /// A job that waits for so long is rung for again.
    pub waiting: Duration,
    /// Webhooks may lead to private addresses.
    pub private_webhooks: bool,
}

impl ChoresOptions {
    /// The usual times.
    ///
    /// # Errors
    /// None that could be seen: the lines are fixed.
    pub fn new() -> Result<Self, WorkerError> {
        let cron = |line: &str| line.parse::<Cron>().map_err(|cause| WorkerError::Options(cause.to_string()));
        Ok(Self {
            sweep: cron("*/2 * * * * *")?,
            tell: cron("*/5 * * * * *")?,
            listings: cron("*/15 * * * * *")?,
            retention: cron("0 7 * * * *")?,
            keep: None,
            waiting: Duration::from_secs(2),
            private_webhooks: false,
        })
    }
}

/// Everything that the housekeeping works with.
#[derive(Clone)]
pub struct Chores {
    /// Ledger and objects.
    pub store: Store,
    /// Which locations may be read and written.
    pub locations: Arc<Locations>,
    /// Rings for jobs, and knows where the tasks lie.
    pub doorbell: Doorbell,
    /// How it goes about it.
    pub options: ChoresOptions,
}

impl Chores {
    /// Does the housekeeping until `stop`.
    ///
    /// # Errors
    /// [`WorkerError::Options`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let caller = Caller::new(self.options.private_webhooks).map_err(WorkerError::Options)?;
        let housekeeping = Housekeeping::beside(&self.doorbell);
        let options = &self.options;
        let schedule = vec![
            (options.sweep.clone(), Task::Sweep),
            (options.tell.clone(), Task::Tell),
            (options.listings.clone(), Task::Listings),
            (options.retention.clone(), Task::Retention),
        ];
        let doing = Arc::new(Doing { chores: self.clone(), housekeeping: housekeeping.clone(), caller });
        let handler = move |task: Task| {
            let doing = doing.clone();
            async move { doing.task(task).await }.boxed()
        };
        housekeeping.run(handler, schedule, stop).await;
        Ok(())
    }
}

struct Doing {
    chores: Chores,
    housekeeping: Housekeeping,
    caller: Caller,
}

impl Doing {
    async fn task(&self, task: Task) {
        let name = task.name();
        let done = match task {
            Task::Sweep => self.sweep().await,
            Task::Tell => self.tell().await,
            Task::Listings => self.listings().await,
            Task::Listing { index } => self.listing(&index).await,
            Task::Retention => self.forget().await,
        };
        if let Err(error) = done {
            tracing::warn!(task = name, error = %error, "housekeeping failed and is tried again later");
        }
    }

    /// Takes back leases past their time, and rings for jobs that nobody took.
    async fn sweep(&self) -> Result<(), StoreError> {
        let ledger = self.chores.store.ledger();
        let reclaimed = ledger.expire().await?;
        if reclaimed.requeued + reclaimed.dead + reclaimed.late > 0 {
            tracing::warn!(
                jobs.requeued = reclaimed.requeued,
                jobs.dead = reclaimed.dead,
                jobs.late = reclaimed.late,
                "took back jobs whose lease or deadline is over"
            );
            figures::dead_letters(reclaimed.dead);
        }
        let waiting = ledger.waiting(self.chores.options.waiting).await?;
        for _ in 0..(reclaimed.requeued + waiting).min(MOST_RINGS) {
            if self.chores.doorbell.ring(None).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Writes the results of batches that have ended and calls their webhooks.
    async fn tell(&self) -> Result<(), StoreError> {
        loop {
            let batches = self.chores.store.ledger().batches_to_tell(BATCHES).await?;
            let more = batches.len() == BATCHES;
            for batch in batches {
                self.tell_one(&batch).await?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn tell_one(&self, batch: &Batch) -> Result<(), StoreError> {
        let ledger = self.chores.store.ledger();
        if batch.exported_ms.is_none()
            && let Some(results) = &batch.results
        {
            if let Err(error) = self.export(batch, results).await {
                return self.put_off(batch, &error.to_string()).await;
            }
            ledger.mark_exported(&batch.tenant, &batch.name).await?;
            tracing::info!(batch.name, batch.tenant, results, "results of a batch are written");
        }
        if batch.told_ms.is_none()
            && let Some(webhook) = &batch.webhook
        {
            let counts = ledger.counts_of(Some(&batch.tenant), Some(&batch.name)).await?;
            let body = WebhookBody::ended(batch, counts);
            match self.caller.call(&webhook.url, &webhook.secret, &body).await {
                Ok(()) => ledger.mark_told(&batch.tenant, &batch.name).await?,
                Err(error) if batch.tries >= MOST_TELLS => {
                    tracing::error!(batch.name, batch.tenant, error, "a webhook is given up");
                    ledger.mark_told(&batch.tenant, &batch.name).await?;
                }
                Err(error) => self.put_off(batch, &error).await?,
            }
        }
        Ok(())
    }

    async fn export(&self, batch: &Batch, results: &str) -> Result<(), StoreError> {
        let results = VideoUri::parse(results).map_err(|cause| StoreError::Corrupt {
            what: format!("results of batch {}", batch.name),
            cause: cause.to_string(),
        })?;
        let job = BatchExport { tenant: &batch.tenant, batch: &batch.name, results: &results };
        export_batch(self.chores.store.ledger(), &self.chores.locations, &job, PartLimits::default()).await?;
        Ok(())
    }

    async fn put_off(&self, batch: &Batch, error: &str) -> Result<(), StoreError> {
        let after = backoff(TELL_AGAIN.0, batch.tries + 1, TELL_AGAIN.1);
        tracing::warn!(
            batch.name,
            batch.tenant,
            error,
            wait_ms = after.as_millis() as u64,
            "results or webhook of a batch failed"
        );
        self.chores.store.ledger().put_off(&batch.tenant, &batch.name, error, after).await
    }

    /// Forgets what is past its time.
    async fn forget(&self) -> Result<(), StoreError> {
        let store = &self.chores.store;
        store.ledger().forget_requests(KEEP_REQUESTS).await?;
        let Some(keep) = self.chores.options.keep else { return Ok(()) };
        let forgotten = store.forget(keep).await?;
        let orphans = store.free_orphans(ORPHAN_AFTER).await?;
        if forgotten != Forgotten::default() || orphans.objects > 0 {
            tracing::info!(
                jobs.forgotten = forgotten.jobs,
                batches.forgotten = forgotten.batches,
                objects.deleted = forgotten.objects + orphans.objects,
                "forgot what is past its time"
            );
        }
        Ok(())
    }

    /// Has the indexes listed that are due.
    async fn listings(&self) -> Result<(), StoreError> {
        for index in self.chores.store.ledger().due_indexes().await? {
            let task = Task::Listing { index: index.to_string() };
            if self.housekeeping.push(task.clone()).await.is_err() {
                // Redis is away: do it here.
                Box::pin(self.task(task)).await;
            }
        }
        Ok(())
    }

    async fn listing(&self, index: &str) -> Result<(), StoreError> {
        let id: IndexId = match index.parse() {
            Ok(id) => id,
            Err(_) => return Err(StoreError::NoIndex(index.to_owned())),
        };
        let Chores { store, locations, doorbell, .. } = self.chores.clone();
        let runtime = Handle::current();
        // On a thread of its own: a listing may take hours, and between two waits it sorts and compares whole pages.
        let listed = tokio::task::spawn_blocking(move || {
            let told = |_: &IndexFigures| {
                let doorbell = doorbell.clone();
                runtime.spawn(async move { doorbell.ring(None).await });
            };
            let options = ListingOptions::default();
            runtime.block_on(listing(store.ledger(), &locations, id, &options, &told))
        });
        let failed = |cause: tokio::task::JoinError| StoreError::Corrupt {
            what: format!("index {index}"),
            cause: cause.to_string(),
        };
        match listed.await.map_err(failed)?? {
            Listed::Done(figures) => tracing::info!(index, figures = ?figures, "an index was listed"),
            Listed::Held => tracing::debug!(index, "an index is being listed by another process"),
        }
        Ok(())
    }
}
