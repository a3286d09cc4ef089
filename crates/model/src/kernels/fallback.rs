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

/// Attention of `q` `[query, tokens, dim]` over `k`, `v` `[kv, all, dim]`; where `causal`, token `i` sees the first
/// `all - tokens + i + 1`. Gives `[tokens, query·dim]`.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: &Heads, causal: bool) -> Result<Tensor> {
    let (tokens, all) = (q.dim(1)?, k.dim(1)?);
    let group = heads.query / heads.kv;
    let spread = |t: &Tensor| {
        t.unsqueeze(1)?.expand((heads.kv, group, all, heads.dim))?.reshape((heads.query, all, heads.dim))
    };
    let (k, v) = (spread(k)?.contiguous()?, spread(v)?.contiguous()?);
    let scores = (q.contiguous()?.matmul(&k.t()?)?.to_dtype(DType::F32)? / (heads.dim as f64).sqrt())?;
    let scores = if causal { scores.broadcast_add(&causal_mask(tokens, all, q)?)? } else { scores };
    let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
    weights.matmul(&v)?.transpose(0, 1)?.reshape((tokens, heads.query * heads.dim))
}

/// `[1, tokens, all]`: 0 where a token sees a key, minus infinity where the key comes later.
fn causal_mask(tokens: usize, all: usize, like: &Tensor) -> Result<Tensor> {
    let mask: Vec<f32> = (0..tokens)
        .flat_map(|i| (0..all).map(move |j| if j + tokens > all + i { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    Tensor::from_vec(mask, (1, tokens, all), like.device())
}
