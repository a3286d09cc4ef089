//! The same functions from candle's operations, for devices other than the CPU; the oracle of the CPU code's tests.

use candle_core::{D, DType, Result, Tensor};

use super::{Heads, Rotary};

pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (rest, inner) = (x.dims()[..x.rank() - 1].to_vec(), x.dim(D::Minus1)?);
    let rows: usize = rest.iter().product();
    let mut out = x.reshape((rows, inner))?.matmul(&weight.t()?)?;
    if let Some(bias) = bias {
        out = out.broadcast_add(bias)?;
    }
    let mut shape = rest;
    shape.push(weight.dim(0)?);
    out.reshape(shape)
}

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let mean = (wide.sqr()?.sum_keepdim(D::Minus1)? / x.dim(D::Minus1)? as f64)?;
    let normed = wide.broadcast_div(&(mean + eps)?.sqrt()?)?;
    normed.to_dtype(x.dtype())?.broadcast_mul(&weight.to_dtype(x.dtype())?)
}

pub(super) fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    let inner = gate_up.dim(D::Minus1)? / 2;
    let gate = gate_up.narrow(D::Minus1, 0, inner)?.contiguous()?;
    let up = gate_up.narrow(D::Minus1, inner, inner)?.contiguous()?;
    gate.silu()? * up
}

/// `x` is `[heads, tokens, dim]`.
fn rotate(x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (low, high) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
    let (cos, sin) = (rotary.cos.to_dtype(x.dtype())?, rotary.sin.to_dtype(x.dtype())?);
    let turned_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
    let turned_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
    Tensor::cat(&[turned_low, turned_high], 2)
}

/// Splits `[tokens, (query + 2·kv)·dim]` and turns queries and keys: `[heads, tokens, dim]` each.
pub(super) fn split_and_rotate(
    qkv: &Tensor,
    rotary: &Rotary,
    heads: &Heads,
) -> Result<(Tensor, Tensor, Tensor)> {
    let tokens = qkv.dim(0)?;
    let part = |from: usize, count: usize| {
        qkv.narrow(1, from * heads.dim, count * heads.dim)?
            .reshape((tokens, count, heads.dim))?
            .transpose(0, 1)?
            .contiguous()
    };
    let queries = rotate(&part(0, heads.query)?, rotary)?;
    let keys = rotate(&part(heads.query, heads.kv)?, rotary)?;
    Ok((queries, keys, part(heads.query + heads.kv, heads.kv)?))
}

/// Which keys a query sees.
#[derive(Clone, Copy)]
pub(super) enum Mask<'a> {
    /// All.
    None,
    /// Token `i` of `tokens` the first `all - tokens + i + 1`.
    Causal,
    /// The first `all - tokens`, and of the rest itself and its ancestors: for each token the one it follows.
    Tree(&'a [Option<usize>]),
}

/// Attention of `q` `[query, tokens, dim]` over `k`, `v` `[kv, all, dim]`. Gives `[tokens, query·dim]`.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: &Heads, mask: Mask<'_>) -> Result<Tensor> {
    let (tokens, all) = (q.dim(1)?, k.dim(1)?);
    let group = heads.query / heads.kv;
    // The queries of a group read their key head in one product; keys and values are not copied.
    let q = q.contiguous()?.reshape((heads.kv, group * tokens, heads.dim))?;
    let scores = (q.matmul(&k.t()?)?.to_dtype(DType::F32)? / (heads.dim as f64).sqrt())?;
    let scores = scores.reshape((heads.query, tokens, all))?;
    let scores = match mask.values(tokens, all) {
        Some(values) => scores.broadcast_add(&Tensor::from_vec(values, (1, tokens, all), q.device())?)?,
        None => scores,
    };
    let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
    let mixed = weights.reshape((heads.kv, group * tokens, all))?.matmul(v)?; // [kv, group * tokens, dim]
    let mixed = mixed.reshape((heads.query, tokens, heads.dim))?;
    mixed.transpose(0, 1)?.reshape((tokens, heads.query * heads.dim))
}

impl Mask<'_> {
    /// `[tokens, all]`: 0 where a token sees a key, minus infinity where it does not; none where all see all.
    fn values(self, tokens: usize, all: usize) -> Option<Vec<f32>> {
        let before = all - tokens;
        let sees = |i: usize, j: usize| match self {
            Self::None => true,
            Self::Causal => j <= before + i,
            Self::Tree(tree) => {
                j < before || std::iter::successors(Some(i), |&at| tree[at]).any(|at| before + at == j)
            }
        };
        if matches!(self, Self::None) || (tokens == 1 && sees(0, all - 1)) {
            return None;
        }
        let value = |at: usize| if sees(at / all, at % all) { 0.0 } else { f32::NEG_INFINITY };
        Some((0..tokens * all).map(value).collect())
    }
}
