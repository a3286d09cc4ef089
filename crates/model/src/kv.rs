//! Keys and values of one sequence over all layers: appended to by the model, rolled back to any length.
//! candle's own caches cannot be cut, and their clones share memory; these are values.

use crate::ModelError;
use crate::kernels::KvCache;

/// One sequence's cache.
#[derive(Clone, Debug)]
pub struct Cache {
    layers: Vec<KvCache>,
}

impl Cache {
    pub(crate) fn new(layers: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self { layers: (0..layers).map(|_| KvCache::new(kv_heads, head_dim)).collect() }
    }

    pub(crate) fn layer(&mut self, number: usize) -> &mut KvCache {
        &mut self.layers[number]
    }

    /// Tokens that every layer holds.
    pub fn len(&self) -> usize {
        // A call that failed half way leaves the first layers longer.
        self.layers.iter().map(KvCache::len).min().unwrap_or(0)
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all tokens from `len` on.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn truncate(&mut self, len: usize) -> Result<(), ModelError> {
        for layer in &mut self.layers {
            layer.truncate(len)?;
        }
        Ok(())
    }

    /// A cache of its own with the first `len` tokens.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn prefix(&self, len: usize) -> Result<Self, ModelError> {
        let mut copy = self.clone();
        copy.truncate(len)?;
        Ok(copy)
    }

    /// Gives back memory that growing reserved ahead.
    pub(crate) fn shrink(&mut self) {
        self.layers.iter_mut().for_each(KvCache::shrink);
    }

    /// The memory that it takes.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(KvCache::bytes).sum()
    }
}
