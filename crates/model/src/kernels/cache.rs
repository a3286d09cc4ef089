//! Keys and values of one layer. Clones share memory until one of them is written to.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};

use super::Heads;
use super::meter::{Charge, KvMeter};
use super::panels::{BLOCK, HeadPanels};
use super::tensor::is_ours;

/// Keys and values that one layer has seen, in order. Appended to by [`causal_attention`](super::causal_attention).
#[derive(Clone, Debug)]
pub struct KvCache {
    kv_heads: usize,
    head_dim: usize,
    len: usize,
    store: Store,
    meter: KvMeter,
}

/// Panels on the CPU, tensors elsewhere. Which of them, the first append settles.
#[derive(Clone, Debug)]
enum Store {
    Empty,
    Panels(Vec<HeadPanels>),
    Tensors(Arc<Lines>),
}

/// Room for `[kv_heads, capacity, head_dim]` each, written from the front.
#[derive(Debug)]
struct Lines {
    k: Tensor,
    v: Tensor,
    _charge: Charge,
}

impl Lines {
    fn new(like: &Tensor, capacity: usize, meter: &KvMeter) -> Result<Self> {
        let (heads, _, dim) = like.dims3()?;
        let empty = || Tensor::zeros((heads, capacity, dim), like.dtype(), like.device());
        let (k, v) = (empty()?, empty()?);
        let charge = meter.charge(2 * k.elem_count() * k.dtype().size_in_bytes());
        Ok(Self { k, v, _charge: charge })
    }

    fn capacity(&self) -> usize {
        self.k.dims()[1]
    }
}

impl KvCache {
    /// Tokens that are held, shared and counted together.
    pub const BLOCK: usize = BLOCK;

    /// Bytes that a cache of so many tokens takes, where `like` is of the device and type that are computed with.
    pub fn bytes_of(tokens: usize, heads: &Heads, like: &Tensor) -> usize {
        let block = match is_ours(like) {
            true => HeadPanels::block_bytes(heads.dim),
            false => 2 * BLOCK * heads.dim * like.dtype().size_in_bytes(),
        };
        tokens.div_ceil(BLOCK) * heads.kv * block
    }

    /// Whether clones share memory where `like` is of the device and type that are computed with; else the first
    /// append to a clone copies it.
    pub fn clones_share(like: &Tensor) -> bool {
        is_ours(like)
    }

    /// An empty cache for `kv_heads` heads of `head_dim` values.
    pub fn new(kv_heads: usize, head_dim: usize) -> Self {
        Self::metered(kv_heads, head_dim, &KvMeter::default())
    }

    /// The same, whose memory is counted by `meter`.
    pub fn metered(kv_heads: usize, head_dim: usize, meter: &KvMeter) -> Self {
        Self { kv_heads, head_dim, len: 0, store: Store::Empty, meter: meter.clone() }
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
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        match &mut self.store {
            _ if len == 0 => self.store = Store::Empty,
            Store::Panels(heads) => heads.iter_mut().for_each(|head| head.truncate(len)),
            Store::Empty | Store::Tensors(_) => {}
        }
        self.len = len;
    }

    /// Of the tokens from `from` on, keeps those at these places (counted from `from`, rising): the accepted path of a tree.
    ///
    /// # Errors
    /// Where a place is not held, or the device fails.
    pub fn keep(&mut self, from: usize, places: &[usize]) -> Result<()> {
        let rising = places.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || places.last().is_some_and(|last| from + last >= self.len) {
            bail!("places {places:?} after token {from} of a cache of {}", self.len);
        }
        if places.iter().copied().eq(0..places.len()) {
            self.truncate(from + places.len());
            return Ok(());
        }
        match &mut self.store {
            Store::Empty => {}
            Store::Panels(heads) => heads.iter_mut().for_each(|head| head.keep(from, places)),
            Store::Tensors(lines) => {
                let at: Vec<u32> = places.iter().map(|place| (from + place) as u32).collect();
                let at = Tensor::new(at, lines.k.device())?;
                let (k, v) = (lines.k.index_select(&at, 1)?, lines.v.index_select(&at, 1)?);
                self.len = from;
                self.append_tensors(&k, &v)?;
            }
        }
        self.len = from + places.len();
        Ok(())
    }

    /// A copy of all keys, turned as they were appended: `[kv_heads, tokens, head_dim]`.
    ///
    /// # Errors
    /// Where nothing is held, or the device fails.
    pub(super) fn keys(&self) -> Result<Tensor> {
        match &self.store {
            Store::Empty => bail!("an empty cache has no keys"),
            Store::Panels(heads) => {
                let all: Vec<f32> = heads.iter().flat_map(HeadPanels::keys).collect();
                Tensor::from_vec(all, (self.kv_heads, self.len, self.head_dim), &Device::Cpu)
            }
            Store::Tensors(lines) => lines.k.narrow(1, 0, self.len)?.contiguous(),
        }
    }

    /// Bytes that it takes, shared ones included.
    pub fn bytes(&self) -> usize {
        let tensor = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        match &self.store {
            Store::Empty => 0,
            Store::Panels(heads) => heads.iter().map(HeadPanels::bytes).sum(),
            Store::Tensors(lines) => tensor(&lines.k) + tensor(&lines.v),
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
            self.store = Store::Panels(vec![HeadPanels::new(self.head_dim, &self.meter); self.kv_heads]);
        }
        let Store::Panels(heads) = &mut self.store else { bail!("the cache is on another device") };
        self.len += tokens;
        Ok(heads)
    }

    /// The panels, one per head; none before the first append.
    pub(super) fn panels(&self) -> &[HeadPanels] {
        if let Store::Panels(heads) = &self.store { heads } else { &[] }
    }

    /// Appends `[kv_heads, tokens, head_dim]` each and gives all.
    pub(super) fn append_tensors(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (from, all) = (self.len, self.len + k.dim(1)?);
        if matches!(self.store, Store::Panels(_)) {
            bail!("the cache is on the CPU");
        }
        let mut lines = match std::mem::replace(&mut self.store, Store::Empty) {
            Store::Tensors(lines) => lines,
            _ => Arc::new(Lines::new(k, all.next_multiple_of(BLOCK), &self.meter)?),
        };
        // In place only where nobody shares it.
        if Arc::get_mut(&mut lines).is_none() || lines.capacity() < all {
            let roomier = Lines::new(k, all.next_multiple_of(BLOCK), &self.meter)?;
            if from > 0 {
                roomier.k.slice_set(&lines.k.narrow(1, 0, from)?.contiguous()?, 1, 0)?;
                roomier.v.slice_set(&lines.v.narrow(1, 0, from)?.contiguous()?, 1, 0)?;
            }
            lines = Arc::new(roomier);
        }
        lines.k.slice_set(&k.contiguous()?, 1, from)?;
        lines.v.slice_set(&v.contiguous()?, 1, from)?;
        let held = (lines.k.narrow(1, 0, all)?, lines.v.narrow(1, 0, all)?);
        self.len = all;
        self.store = Store::Tensors(lines);
        Ok(held)
    }
}
