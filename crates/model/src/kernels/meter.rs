//! Counts the memory that keys and values take, so that a budget for them can be kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of all caches that were made with it; cheap to clone, clones count together.
#[derive(Clone, Debug, Default)]
pub struct KvMeter {
    bytes: Arc<AtomicUsize>,
}

impl KvMeter {
    /// Bytes that are held now. What caches share counts once.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts `bytes` until the charge is dropped.
    pub(super) fn charge(&self, bytes: usize) -> Charge {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Charge { meter: self.clone(), bytes }
    }
}

/// Bytes that are counted for as long as this lives.
#[derive(Debug)]
pub(super) struct Charge {
    meter: KvMeter,
    bytes: usize,
}

impl Clone for Charge {
    /// A copy of what is counted takes the same again.
    fn clone(&self) -> Self {
        self.meter.charge(self.bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.meter.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
