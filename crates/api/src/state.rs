//! What every request is answered with.

use std::{fmt, sync::Arc, time::Duration};

use spectemp_queue::{Doorbell, Limiter};
use spectemp_store::{Locations, SqlLimits, Store};
use tokio_util::sync::CancellationToken;

use crate::auth::KnownKeys;

/// Renders the metrics of the process in the text format of Prometheus.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// How the API behaves.
#[derive(Clone)]
pub struct Settings {
    /// True where whoever reaches the server may do everything for the default tenant as long as there are no keys:
    /// only for a server on the loopback interface.
    pub open: bool,
    /// The plan of jobs that name none.
    pub plan: String,
    /// `key=value` overrides of every job's plan, applied before the job's own.
    pub set: Vec<String>,
    /// Requests that a key may send per second, in the long run.
    pub rate_per_second: f64,
    /// Requests that a key may send at once.
    pub rate_burst: u32,
    /// The largest body of a request, besides batches.
    pub body_bytes: usize,
    /// The largest body of a batch.
    pub batch_bytes: u64,
    /// A manifest that is being read belongs to its server for so long after each sign of life; then another one reads it.
    pub manifest_hold: Duration,
    /// A connection is closed whose request's headers are not there so long after it was opened, or after the request
    /// before.
    pub headers_within: Duration,
    /// Limits of a query in SQL, which a request can only lower.
    pub sql: SqlLimits,
    /// Streams of events that may be open at once.
    pub streams: usize,
    /// True where webhooks may go to private and loopback addresses.
    pub private_webhooks: bool,
    /// What `/metrics` answers with.
    pub metrics: Option<RenderMetrics>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            open: false,
            plan: "paper16".to_owned(),
            set: Vec::new(),
            rate_per_second: 1000.0,
            rate_burst: 2000,
            body_bytes: 1024 * 1024,
            batch_bytes: 4 << 30,
            manifest_hold: Duration::from_secs(60),
            headers_within: Duration::from_secs(30),
            sql: SqlLimits::default(),
            streams: 512,
            private_webhooks: false,
            metrics: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("open", &self.open)
            .field("plan", &self.plan)
            .field("rate_per_second", &self.rate_per_second)
            .finish_non_exhaustive()
    }
}

/// Ledger, objects, doorbell, limiter and settings. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub(crate) store: Store,
    pub(crate) locations: Arc<Locations>,
    pub(crate) doorbell: Doorbell,
    pub(crate) limiter: Limiter,
    pub(crate) settings: Arc<Settings>,
    pub(crate) keys: Arc<KnownKeys>,
    pub(crate) streams: Arc<tokio::sync::Semaphore>,
    /// Told when a request has left a manifest to be read.
    pub(crate) manifests: Arc<tokio::sync::Notify>,
    /// Cancelled when the server stops: open streams end.
    pub(crate) stop: CancellationToken,
}

impl AppState {
    /// The state of a server that ends its streams when `stop` is cancelled.
    pub fn new(
        store: Store,
        locations: Arc<Locations>,
        doorbell: Doorbell,
        settings: Settings,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            locations,
            limiter: Limiter::beside(&doorbell),
            doorbell,
            streams: Arc::new(tokio::sync::Semaphore::new(settings.streams)),
            manifests: Arc::default(),
            settings: Arc::new(settings),
            keys: Arc::default(),
            stop,
        }
    }

    /// Rings without waiting: a ring that fails costs time, never a job, so the request does not hang on it.
    pub(crate) fn ring(&self, job: Option<spectemp_types::JobId>) {
        let doorbell = self.doorbell.clone();
        tokio::spawn(async move {
            if let Err(error) = doorbell.ring(job).await {
                tracing::warn!(error = %error, "a ring was lost: the sweep will find the job");
            }
        });
    }
}
