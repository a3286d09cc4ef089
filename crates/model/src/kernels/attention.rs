//! Rotary attention: causal over a cache (language), and inside segments (vision).

use candle_core::{Result, Tensor};

use super::{KvCache, Rotary, Threads, fallback};

/// Heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; each serves `query / kv` query heads.
    pub kv: usize,
    /// Values of a head.
    pub dim: usize,
}

/// Turns queries and keys, appends keys and values to the cache, and lets each new token attend to the cache up to itself.
///
/// `qkv` is `[tokens, (query + 2·kv)·dim]`, the result `[tokens, query·dim]`.
///
/// # Errors
/// Where shapes do not fit each other.
pub fn causal_attention(
    _threads: &Threads,
    qkv: &Tensor,
    rotary: &Rotary,
    heads: &Heads,
    cache: &mut KvCache,
) -> Result<Tensor> {
    let (q, k, v) = fallback::split_and_rotate(qkv, rotary, heads)?;
    let (k, v) = cache.append_tensors(&k, &v)?;
    fallback::attend(&q, &k, &v, heads, true)
}

/// Turns queries and keys, and lets each token attend to all tokens of its own segment.
///
/// `qkv` is `[tokens, (query + 2·kv)·dim]`; segment `i` holds tokens `cu_seqlens[i]..cu_seqlens[i + 1]`.
/// The result is `[tokens, query·dim]`.
///
/// # Errors
/// Where shapes or bounds do not fit each other.
pub fn segment_attention(
    _threads: &Threads,
    qkv: &Tensor,
    rotary: &Rotary,
    heads: &Heads,
    cu_seqlens: &[u32],
) -> Result<Tensor> {
    let (q, k, v) = fallback::split_and_rotate(qkv, rotary, heads)?;
    let mut outputs = Vec::new();
    for bounds in cu_seqlens.windows(2) {
        let (from, count) = (bounds[0] as usize, (bounds[1] - bounds[0]) as usize);
        if count > 0 {
            let part = |t: &Tensor| t.narrow(1, from, count);
            outputs.push(fallback::attend(&part(&q)?, &part(&k)?, &part(&v)?, heads, false)?);
        }
    }
    Tensor::cat(&outputs, 0)
}
