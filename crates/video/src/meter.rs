//! What one call costs. Calls run side by side, so each has counters of its own; a video's totals are their sum.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use spectemp_types::IoFigures;
use tokio_util::sync::CancellationToken;

/// One call: its counters and what ends it.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) cancel: CancellationToken,
    pub(crate) fetching: Arc<Stopwatch>,
    pub(crate) decoding: Arc<Stopwatch>,
    requests: AtomicU64,
    bytes: AtomicU64,
    decoded: AtomicU64,
    scanned: AtomicBool,
}

impl Call {
    pub(crate) fn new(cancel: CancellationToken) -> Arc<Self> {
        Arc::new(Self { cancel, ..Self::default() })
    }

    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn decoded(&self, frames: u64) {
        self.decoded.fetch_add(frames, Ordering::Relaxed);
    }

    pub(crate) fn scanned(&self) {
        self.scanned.store(true, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn figures(&self) -> IoFigures {
        IoFigures {
            requests: self.requests.load(Ordering::Relaxed),
            bytes: self.bytes(),
            decoded_frames: self.decoded.load(Ordering::Relaxed),
            full_scan: self.scanned.load(Ordering::Relaxed),
        }
    }
}

/// Time during which at least one thing of a kind was going on.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    state: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    count: u32,
    since: Option<Instant>,
    total: Duration,
}

impl Stopwatch {
    /// Runs until the guard is dropped.
    pub(crate) fn start(self: &Arc<Self>) -> StopwatchGuard {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        if state.count == 1 {
            state.since = Some(Instant::now());
        }
        StopwatchGuard(Arc::clone(self))
    }

    pub(crate) fn milliseconds(&self) -> f64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let running = state.since.map_or(Duration::ZERO, |since| since.elapsed());
        (state.total + running).as_secs_f64() * 1e3
    }
}

/// See [`Stopwatch::start`].
pub(crate) struct StopwatchGuard(Arc<Stopwatch>);

impl Drop for StopwatchGuard {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count -= 1;
        if state.count == 0
            && let Some(since) = state.since.take()
        {
            state.total += since.elapsed();
        }
    }
}
