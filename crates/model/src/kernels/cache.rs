//! Keys and values of one layer.

use candle_core::{Result, Tensor};

/// Keys and values that one layer has seen, in order. Appended to by [`causal_attention`](super::causal_attention).
#[derive(Clone, Debug)]
pub struct KvCache {
    kv_heads: usize,
    head_dim: usize,
    tensors: Option<(Tensor, Tensor)>,
}

impl KvCache {
    /// An empty cache for `kv_heads` heads of `head_dim` values.
    pub fn new(kv_heads: usize, head_dim: usize) -> Self {
        Self { kv_heads, head_dim, tensors: None }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.tensors.as_ref().map_or(0, |(k, _)| k.dims()[1])
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all tokens from `len` on.
    ///
    /// # Errors
    /// Where a device fails.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if let Some((k, v)) = &self.tensors
            && len < self.len()
        {
            self.tensors = if len == 0 { None } else { Some((k.narrow(1, 0, len)?, v.narrow(1, 0, len)?)) };
        }
        Ok(())
    }

    /// Appends `[kv_heads, tokens, head_dim]` each and gives all.
    pub(super) fn append_tensors(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let all = match &self.tensors {
            Some((old_k, old_v)) => (Tensor::cat(&[old_k, k], 1)?, Tensor::cat(&[old_v, v], 1)?),
            None => (k.clone(), v.clone()),
        };
        self.tensors = Some(all.clone());
        Ok(all)
    }
}
