//! The leases that this process holds, and their heartbeats.
//!
//! A lease that cannot be prolonged is over for its session some time *before* it is over for the ledger: nobody else
//! can have the job while this process may still write about it. The epoch guards what is written in any case.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use spectemp_store::{Lease, Ledger, StoreError};
use spectemp_types::JobId;
use tokio_util::sync::CancellationToken;

/// How often the clock of each lease is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One session's right to go on.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    job: JobId,
    epoch: u32,
    cancel: CancellationToken,
    lost: CancellationToken,
}

impl Hold {
    /// A hold on what `lease` is for, that ends with `hard` at the latest.
    pub(crate) fn new(lease: &Lease, hard: &CancellationToken) -> Self {
        let lost = CancellationToken::new();
        Self { job: lease.job(), epoch: lease.epoch(), cancel: hard.child_token(), lost }
    }

    /// Cancelled when the session must stop at once.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// True where the lease is not ours any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Until the lease is not ours any more.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// What a write under a lost lease comes to.
    pub(crate) fn stale(&self) -> StoreError {
        StoreError::Stale { job: self.job, epoch: self.epoch }
    }

    fn lose(&self) {
        self.lost.cancel();
        self.cancel.cancel();
    }
}

/// All leases with a time.
pub(crate) struct Leases {
    held: Mutex<HashMap<JobId, Held>>,
    time: Duration,
}

struct Held {
    lease: Lease,
    hold: Hold,
    /// Until when the lease is ours for certain.
    until: Instant,
}

impl Leases {
    /// None yet; each will be for `time`.
    pub(crate) fn new(time: Duration) -> Self {
        Self { held: Mutex::default(), time }
    }

    /// Keeps a lease alive that was claimed after `asked`, until the guard is dropped.
    pub(crate) fn keep(self: &Arc<Self>, lease: &Lease, hold: &Hold, asked: Instant) -> Kept {
        let held = Held { lease: lease.clone(), hold: hold.clone(), until: asked + self.time };
        // A job that was taken back and claimed again by this very process: its earlier session is overtaken.
        if let Some(earlier) = self.held().insert(lease.job(), held) {
            earlier.hold.lose();
        }
        Kept { leases: self.clone(), job: lease.job(), epoch: lease.epoch() }
    }

    /// Prolongs all leases every `every`, until dropped.
    pub(crate) async fn beat(&self, ledger: &Ledger, every: Duration) {
        let mut next = Instant::now() + every;
        loop {
            tokio::time::sleep(LOOK_EVERY.min(every)).await;
            self.look();
            if Instant::now() < next {
                continue;
            }
            // Where Postgres is away the next try comes soon; meanwhile the clocks must be looked at too.
            let asked = Instant::now();
            let beaten = tokio::select! {
                beaten = tokio::time::timeout(every, self.prolong(ledger)) => beaten,
                () = self.look_on() => continue,
            };
            let wait = match beaten {
                Ok(Ok(())) => every,
                Ok(Err(error)) => {
                    tracing::warn!(error = %error, "leases could not be prolonged");
                    every / 4
                }
                Err(_) => {
                    tracing::warn!(
                        wait_ms = every.as_millis() as u64,
                        "the ledger does not answer heartbeats"
                    );
                    every / 4
                }
            };
            next = asked + wait;
        }
    }

    async fn prolong(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let leases: Vec<Lease> = self.held().values().map(|held| held.lease.clone()).collect();
        if leases.is_empty() {
            return Ok(());
        }
        let asked = Instant::now();
        let lost = ledger.heartbeat(&leases.iter().collect::<Vec<_>>(), self.time).await?;
        let mut held = self.held();
        for lease in leases {
            // It may have ended meanwhile, or the job may have come back under another epoch.
            let Some(entry) = held.get_mut(&lease.job()).filter(|entry| entry.lease == lease) else {
                continue;
            };
            if lost.contains(&lease.job()) {
                entry.hold.lose();
            } else {
                entry.until = asked + self.time;
            }
        }
        held.retain(|_, entry| !entry.hold.is_lost());
        Ok(())
    }

    async fn look_on(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look();
        }
    }

    /// Gives up the leases whose time is nearly over.
    fn look(&self) {
        let now = Instant::now();
        self.held().retain(|job, held| {
            let over = held.until.saturating_duration_since(now) < self.time / 6;
            if over {
                tracing::warn!(job.id = %job, "lease could not be prolonged in time: the session stops");
                held.hold.lose();
            }
            !over
        });
    }

    fn held(&self) -> MutexGuard<'_, HashMap<JobId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease that is kept alive.
pub(crate) struct Kept {
    leases: Arc<Leases>,
    job: JobId,
    epoch: u32,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut held = self.leases.held();
        if held.get(&self.job).is_some_and(|held| held.lease.epoch() == self.epoch) {
            held.remove(&self.job);
        }
    }
}
