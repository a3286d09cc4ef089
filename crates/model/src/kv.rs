//! Keys and values of one sequence over all layers: appended to by the model, rolled back to any length, forked.
//! Forks share memory: a block of tokens is held once until one of them writes to it.

use crate::ModelError;
use crate::kernels::{KvCache, KvMeter};

/// One sequence's cache. The default one has no layers and belongs to no model.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    layers: Vec<KvCache>,
}

impl Cache {
    /// Tokens that are held, shared and counted together.
    pub const BLOCK: usize = KvCache::BLOCK;

    pub(crate) fn new(layers: usize, kv_heads: usize, head_dim: usize, meter: &KvMeter) -> Self {
        Self { layers: (0..layers).map(|_| KvCache::metered(kv_heads, head_dim, meter)).collect() }
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
    pub fn truncate(&mut self, len: usize) {
        self.layers.iter_mut().for_each(|layer| layer.truncate(len));
    }

    /// Of the tokens from `from` on, keeps those at these places (counted from `from`, rising): the accepted path of a
    /// tree of tokens.
    ///
    /// # Errors
    /// Where a place is not held, or the device fails.
    pub fn keep(&mut self, from: usize, places: &[usize]) -> Result<(), ModelError> {
        for layer in &mut self.layers {
            layer.keep(from, places)?;
        }
        Ok(())
    }

    /// The first `len` tokens as a cache of their own. It shares their memory; neither sees what the other appends.
    #[must_use]
    pub fn fork(&self, len: usize) -> Self {
        let mut fork = self.clone();
        fork.truncate(len);
        fork
    }

    /// The memory that it takes, shared blocks included.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(KvCache::bytes).sum()
    }
}
