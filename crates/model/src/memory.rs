//! The memory that the models of one device share: a budget for keys and values, known before a request starts, what is
//! kept of earlier requests, and vision embeddings.

use std::collections::HashMap;

use crate::kernels::KvMeter;
use crate::kv::Cache;
use crate::prefix::{KeptSequences, ModelId};
use crate::visions::VisionCache;

/// See the module.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Counts what keys and values take.
    pub(crate) meter: KvMeter,
    /// Most bytes of keys and values.
    budget: usize,
    /// Most bytes of them that serve no running request.
    keep: usize,
    pub(crate) kept: KeptSequences,
    pub(crate) visions: VisionCache,
    /// Of the running requests of each model.
    usage: HashMap<ModelId, Usage>,
}

/// What a model's running requests take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Bytes that their caches have, shared ones as often as they are shared.
    pub(crate) held: usize,
    /// Bytes that they may still take.
    pub(crate) promised: usize,
}

impl Memory {
    /// Room for `budget` bytes of keys and values, of which at most `keep` serve no running request.
    pub(crate) fn new(meter: KvMeter, budget: usize, keep: usize, visions: VisionCache) -> Self {
        Self { meter, budget, keep, kept: KeptSequences::default(), visions, usage: HashMap::new() }
    }

    /// Says what a model's running requests take now.
    pub(crate) fn set_usage(&mut self, model: ModelId, usage: Usage) {
        self.usage.insert(model, usage);
    }

    /// Forgets all of a model.
    pub(crate) fn forget(&mut self, model: ModelId) {
        self.usage.remove(&model);
        self.kept.clear(model);
        self.visions.clear(model);
    }

    /// Whether `bytes` more can be promised; forgets kept sequences for it, the oldest first.
    pub(crate) fn make_room(&mut self, bytes: usize) -> bool {
        let promised: usize = self.usage.values().map(|usage| usage.promised).sum();
        while self.meter.bytes() + promised + bytes > self.budget {
            if !self.kept.drop_oldest() {
                return false;
            }
        }
        true
    }

    /// Keeps what a request left, where anything is kept at all; `keys` name its tokens.
    pub(crate) fn keep_sequence(&mut self, model: ModelId, keys: Vec<u64>, cache: Cache) {
        if self.keep > 0 && !keys.is_empty() {
            self.kept.put(model, keys, cache);
        }
    }

    /// Forgets kept sequences until they are within their share.
    pub(crate) fn trim_kept(&mut self) {
        let running: usize = self.usage.values().map(|usage| usage.held).sum();
        while self.meter.bytes().saturating_sub(running) > self.keep && self.kept.drop_oldest() {}
    }
}

/// A quarter of the memory that is free now, at least 256 MiB: what is used where no budget is set.
pub(crate) fn default_budget() -> usize {
    const LEAST: usize = 256 << 20;
    /// Where the system does not tell.
    const USUAL: usize = 2 << 30;
    available_bytes().map_or(USUAL, |bytes| (bytes / 4).max(LEAST))
}

/// `MemAvailable` of Linux; none elsewhere.
fn available_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}
