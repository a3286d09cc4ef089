//! Keys and values of one layer.

use candle_core::{Result, Tensor, bail};

use super::Heads;
use super::panels::HeadPanels;

/// Keys and values that one layer has seen, in order. Appended to by [`causal_attention`](super::causal_attention).
#[derive(Clone, Debug)]
pub struct KvCache {
    kv_heads: usize,
    head_dim: usize,
    len: usize,
    store: Store,
}

/// Panels on the CPU; `[kv_heads, tokens, head_dim]` each elsewhere. Which of them, the first append settles.
#[derive(Clone, Debug)]
enum Store {
    Empty,
    Panels(Vec<HeadPanels>),
    Tensors(Tensor, Tensor),
}

impl KvCache {
    /// An empty cache for `kv_heads` heads of `head_dim` values.
    pub fn new(kv_heads: usize, head_dim: usize) -> Self {
        Self { kv_heads, head_dim, len: 0, store: Store::Empty }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all tokens from `len` on.
    ///
    /// # Errors
    /// Where a device fails.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len >= self.len {
            return Ok(());
        }
        match &mut self.store {
            _ if len == 0 => self.store = Store::Empty,
            Store::Empty => {}
            Store::Panels(heads) => heads.iter_mut().for_each(|head| head.truncate(len)),
            Store::Tensors(k, v) => (*k, *v) = (k.narrow(1, 0, len)?, v.narrow(1, 0, len)?),
        }
        self.len = len;
        Ok(())
    }

    /// Gives back memory that growing reserved ahead: for a cache that is put away.
    pub fn shrink(&mut self) {
        if let Store::Panels(heads) = &mut self.store {
            heads.iter_mut().for_each(HeadPanels::shrink);
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let tensor = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        match &self.store {
            Store::Empty => 0,
            Store::Panels(heads) => heads.iter().map(HeadPanels::bytes).sum(),
            Store::Tensors(k, v) => tensor(k) + tensor(v),
        }
    }

    /// Whether it was made for these heads.
    pub(super) fn check(&self, heads: &Heads) -> Result<()> {
        if self.kv_heads != heads.kv || self.head_dim != heads.dim {
            bail!(
                "a cache of {}×{} was given heads of {}×{}",
                self.kv_heads,
                self.head_dim,
                heads.kv,
                heads.dim
            );
        }
        Ok(())
    }

    /// The panels to append `tokens` to, one per head.
    pub(super) fn grow_panels(&mut self, tokens: usize) -> Result<&mut [HeadPanels]> {
        if matches!(self.store, Store::Empty) {
            self.store = Store::Panels(vec![HeadPanels::new(self.head_dim); self.kv_heads]);
        }
        let Store::Panels(heads) = &mut self.store else { bail!("the cache is on another device") };
        self.len += tokens;
        Ok(heads)
    }

    /// Appends `[kv_heads, tokens, head_dim]` each and gives all.
    pub(super) fn append_tensors(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (all_k, all_v) = match &self.store {
            Store::Tensors(old_k, old_v) => (Tensor::cat(&[old_k, k], 1)?, Tensor::cat(&[old_v, v], 1)?),
            Store::Empty => (k.clone(), v.clone()),
            Store::Panels(_) => bail!("the cache is on the CPU"),
        };
        self.len += k.dim(1)?;
        self.store = Store::Tensors(all_k.clone(), all_v.clone());
        Ok((all_k, all_v))
    }
}
