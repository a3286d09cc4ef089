//! How much attention tokens get: for choosing those that a draft may do without. Not on the way of a token, so it is made
//! of candle's operations everywhere.

use candle_core::{D, DType, Result, Tensor};

use super::{Heads, KvCache, Rotary, fallback};

/// The attention that each token of the cache gets from the call's tokens, which are its last ones: the mean over them
/// and over all heads. `qkv` is `[tokens, (query + 2·kv)·dim]`.
///
/// # Errors
/// Where shapes do not fit each other, or the device fails.
pub fn attention_mass(qkv: &Tensor, rotary: &Rotary, heads: &Heads, cache: &KvCache) -> Result<Vec<f32>> {
    let (tokens, all) = (qkv.dim(0)?, cache.len());
    let (queries, ..) = fallback::split_and_rotate(qkv, rotary, heads)?; // [query, tokens, dim]
    let group = heads.query / heads.kv;
    let queries = queries.contiguous()?.reshape((heads.kv, group * tokens, heads.dim))?;
    let keys = cache.keys()?; // [kv, all, dim]
    let scores = (queries.matmul(&keys.t()?)?.to_dtype(DType::F32)? / (heads.dim as f64).sqrt())?;
    let scores = scores.reshape((heads.query, tokens, all))?;
    // Token `i` of the call sees the first `all - tokens + i + 1`.
    let hidden = |at: usize| if at % all > all - tokens + at / all { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..tokens * all).map(hidden).collect();
    let scores = scores.broadcast_add(&Tensor::from_vec(mask, (tokens, all), scores.device())?)?;
    let largest = scores.max_keepdim(D::Minus1)?;
    let weights = scores.broadcast_sub(&largest)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    weights.mean((0, 1))?.to_vec1()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::kernels::{KvSpan, Threads, causal_attention};

    #[test]
    fn a_token_is_looked_at_as_its_value_says() {
        // One head; the value of token `i` is `i + 1` times the first unit vector: the output's first entry is the
        // mass-weighted mean of the values.
        let (heads, tokens) = (Heads { query: 1, kv: 1, dim: 4 }, 5);
        let row = |at: usize| {
            let noise = |k: usize| ((at * 7 + k * 3) % 11) as f32 / 5.0 - 1.0;
            let mut row: Vec<f32> = (0..8).map(noise).collect();
            row.extend([at as f32 + 1.0, 0.0, 0.0, 0.0]);
            row
        };
        let qkv: Vec<f32> = (0..tokens).flat_map(row).collect();
        let qkv = Tensor::from_vec(qkv, (tokens, 12), &Device::Cpu).unwrap();
        let angles = |value: f32| Tensor::full(value, (tokens, 2), &Device::Cpu).unwrap();
        let rotary = Rotary { cos: angles(1.0), sin: angles(0.0) };
        let mut cache = KvCache::new(1, 4);
        let spans = &mut [KvSpan { cache: &mut cache, tokens, tree: None }];
        let out = causal_attention(&Threads::new(1), &qkv, &rotary, &heads, spans).unwrap();
        let out: Vec<Vec<f32>> = out.to_vec2().unwrap();
        let mass = attention_mass(&qkv, &rotary, &heads, &cache).unwrap();
        assert!((mass.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        let by_mass: f32 = mass.iter().zip(1_u8..).map(|(mass, value)| mass * f32::from(value)).sum();
        let by_output = out.iter().map(|row| row[0]).sum::<f32>() / tokens as f32;
        assert!((by_mass - by_output).abs() < 1e-4, "{by_mass} {by_output}");
    }
}
