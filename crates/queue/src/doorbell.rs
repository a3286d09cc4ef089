//! The doorbell itself: many ring, whoever is idle wakes up. A ring wakes one who waits; rings that find nobody waiting
//! are kept, a few of them, for those who come next.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use apalis::prelude::WorkerBuilder;
use futures::FutureExt as _;
use spectemp_types::JobId;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    QueueError,
    link::Link,
    list::{CAP, List},
    message::Bell,
};

/// A doorbell. Clones are the same bell.
#[derive(Clone)]
pub struct Doorbell {
    bell: Arc<Bells>,
}

/// Where in Redis the doorbell hangs.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// In front of all keys.
    pub prefix: String,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { prefix: "spectemp".to_owned() }
    }
}

/// Why [`Doorbell::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Somebody rang.
    Rung,
    /// Nobody did.
    Timeout,
}

/// Whether rings get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorbellState {
    /// They do.
    Up,
    /// They do not: workers find jobs by looking into the ledger now and then.
    Down {
        /// Since when.
        since: SystemTime,
        /// What Redis, or the network, says.
        error: String,
    },
}

struct Bells {
    rung: Arc<Rung>,
    list: List<Bell>,
    link: Option<Link>,
    /// The apalis worker, started by the first who waits: who only rings needs none.
    listener: OnceCell<DropGuard>,
}

/// Rings that have reached this process.
struct Rung {
    rings: Semaphore,
    /// How many wait; messages are taken from Redis only while somebody does.
    waiting: watch::Sender<usize>,
    wanted: watch::Sender<bool>,
}

impl Doorbell {
    /// A doorbell within this process.
    pub fn memory() -> Self {
        Self::over(None)
    }

    /// A doorbell over Redis, which need not be there yet. Must be called within a runtime of tokio.
    ///
    /// # Errors
    /// [`QueueError::Url`].
    pub fn redis(url: &str, options: RedisOptions) -> Result<Self, QueueError> {
        Ok(Self::over(Some(Link::new(url, &options.prefix)?)))
    }

    fn over(link: Option<Link>) -> Self {
        let rung = Rung::new();
        let gate = rung.wanted.subscribe();
        let list = match &link {
            Some(link) => List::redis(link.clone(), "bell", gate),
            None => List::memory(gate),
        };
        Self { bell: Arc::new(Bells { rung, list, link, listener: OnceCell::new() }) }
    }

    /// Wakes one who waits, now or next. `job` is a hint for people: whoever wakes up looks for the best job.
    ///
    /// # Errors
    /// [`QueueError::Down`], after half a second at most. Nothing is lost by it: the row waits in the ledger.
    pub async fn ring(&self, job: Option<JobId>) -> Result<(), QueueError> {
        self.bell.list.push(Bell::Ring { job }).await
    }

    /// Waits for a ring, `max` at most. It returns in time whatever state Redis is in.
    pub async fn wait(&self, max: Duration) -> Woken {
        let (rung, list) = (&self.bell.rung, &self.bell.list);
        self.bell.listener.get_or_init(|| async { listen(list, rung.clone()) }).await;
        let _here = rung.wait();
        match tokio::time::timeout(max, rung.rings.acquire()).await {
            Ok(Ok(ring)) => {
                ring.forget();
                Woken::Rung
            }
            _ => Woken::Timeout,
        }
    }

    /// Whether rings get through now.
    pub fn state(&self) -> DoorbellState {
        self.bell.link.as_ref().map_or(DoorbellState::Up, Link::state)
    }

    pub(crate) fn link(&self) -> Option<&Link> {
        self.bell.link.as_ref()
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbell").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Rung {
    fn new() -> Arc<Self> {
        let (waiting, wanted) = (watch::Sender::new(0), watch::Sender::new(false));
        Arc::new(Self { rings: Semaphore::new(0), waiting, wanted })
    }

    fn add(&self) {
        if self.rings.available_permits() < CAP {
            self.rings.add_permits(1);
        }
    }

    /// Counts as waiting until the guard is dropped.
    fn wait(&self) -> Waiting<'_> {
        self.change(1);
        Waiting { rung: self }
    }

    fn change(&self, by: isize) {
        self.waiting.send_modify(|waiting| {
            *waiting = waiting.saturating_add_signed(by);
            self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, *waiting > 0) != (*waiting > 0));
        });
    }

    fn is_wanted(&self) -> bool {
        *self.wanted.borrow()
    }
}

struct Waiting<'a> {
    rung: &'a Rung,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.rung.change(-1);
    }
}

/// Starts the apalis worker that takes rings from Redis; it ends when the guard is dropped.
fn listen(list: &List<Bell>, rung: Arc<Rung>) -> DropGuard {
    let stop = CancellationToken::new();
    let list = list.clone();
    // An apalis worker may end without an error; the doorbell does not.
    let listening = async move {
        loop {
            let ended = hear(list.clone(), rung.clone()).await;
            tracing::warn!(error = ?ended.err(), "the doorbell's listener starts again");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::spawn(stop.clone().run_until_cancelled_owned(listening));
    stop.drop_guard()
}

async fn hear(list: List<Bell>, rung: Arc<Rung>) -> Result<(), String> {
    let backend = list.backend().map_err(|error| error.to_string())?;
    let name = format!("doorbell-{}", uuid::Uuid::now_v7());
    let worker = WorkerBuilder::new(name).backend(backend).build(move |message: Bell| {
        let (rung, back) = (rung.clone(), list.clone());
        async move {
            let Bell::Ring { .. } = message;
            if rung.is_wanted() {
                rung.add();
            } else {
                // It was under way when the last one here stopped waiting: let another process have it.
                let _ = back.push(message).await;
            }
        }
        .boxed()
    });
    worker.run().boxed().await.map_err(|error| error.to_string())
}
