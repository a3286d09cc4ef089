//! The CPU code against candle's operations, over odd shapes; and that rows and threads do not change a bit.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::{
    Heads, KvCache, Linear, Part, Rotary, Threads, add_rms_norm, causal_attention, fallback, gelu, rms_norm,
    segment_attention, silu_mul,
};

/// Values in -1..1 that repeat from run to run.
pub(super) fn tensor(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub(super) fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Equal shapes, and max|a−b| ≤ tolerance · max|b|.
fn assert_near(ours: &Tensor, theirs: &Tensor, tolerance: f32) {
    assert_eq!(ours.dims(), theirs.dims());
    let (ours, theirs) = (values(ours), values(theirs));
    let largest = theirs.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    for (at, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "value {at}: {a} and {b}, largest {largest}");
    }
}

pub(super) fn assert_bits(a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims());
    // Equality of floats, not of their bits: a sum may end in a zero of either sign.
    assert!(values(a) == values(b), "results differ");
}

fn rotary(from: usize, tokens: usize, dim: usize) -> Rotary {
    let angle = |i: usize| ((from + i / (dim / 2)) as f32) * 0.9_f32.powi((i % (dim / 2)) as i32);
    let count = tokens * dim / 2;
    let table = |of: fn(f32) -> f32| {
        let values: Vec<f32> = (0..count).map(|i| of(angle(i))).collect();
        Tensor::from_vec(values, (tokens, dim / 2), &Device::Cpu).unwrap()
    };
    Rotary { cos: table(f32::cos), sin: table(f32::sin) }
}

fn causal_reference(qkv: &Tensor, rotary: &Rotary, heads: &Heads) -> Tensor {
    let (q, k, v) = fallback::split_and_rotate(qkv, rotary, heads).unwrap();
    fallback::attend(&q, &k, &v, heads, true).unwrap()
}

fn heads() -> impl Strategy<Value = Heads> {
    let dims = prop_oneof![Just(2_usize), Just(16), Just(40), Just(64), Just(80), Just(128)];
    (1_usize..=3, 1_usize..=7, dims).prop_map(|(kv, group, dim)| Heads { query: kv * group, kv, dim })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn products_are_candles(rows in 1_usize..60, inputs in 1_usize..700, first in 1_usize..90, second in 1_usize..70, bf16: bool) {
        let threads = Threads::new(2);
        let dtype = if bf16 { DType::BF16 } else { DType::F32 };
        let x = tensor(&[rows, inputs], 1);
        let weights = [tensor(&[first, inputs], 2), tensor(&[second, inputs], 3)].map(|w| w.to_dtype(dtype).unwrap());
        let bias = tensor(&[first], 4);
        let parts = [Part { weight: &weights[0], bias: Some(&bias) }, Part { weight: &weights[1], bias: None }];
        let linear = Linear::new(&threads, &parts).unwrap();
        let out = linear.forward(&x).unwrap();

        let wide = weights.each_ref().map(|w| w.to_dtype(DType::F32).unwrap());
        let low = fallback::linear(&x, &wide[0], Some(&bias)).unwrap();
        let high = fallback::linear(&x, &wide[1], None).unwrap();
        assert_near(&out, &Tensor::cat(&[&low, &high], 1).unwrap(), 2e-5);
        let ids = [(first + second - 1) as u32, 0];
        let rows = Tensor::cat(&[wide[1].narrow(0, second - 1, 1).unwrap(), wide[0].narrow(0, 0, 1).unwrap()], 0).unwrap();
        assert_bits(&linear.rows(&ids).unwrap(), &rows);
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others(rows in 2_usize..50, inputs in 1_usize..700, outputs in 1_usize..90, bf16: bool) {
        let weight = tensor(&[outputs, inputs], 2).to_dtype(if bf16 { DType::BF16 } else { DType::F32 }).unwrap();
        let x = tensor(&[rows, inputs], 1);
        let bias = tensor(&[outputs], 4);
        let layer = |count| Linear::new(&Threads::new(count), &[Part { weight: &weight, bias: Some(&bias) }]).unwrap();
        let all = layer(3).forward(&x).unwrap();
        let single = layer(1);
        for row in 0..rows {
            let alone = single.forward(&x.narrow(0, row, 1).unwrap()).unwrap();
            assert_bits(&alone, &all.narrow(0, row, 1).unwrap());
        }
    }

    #[test]
    fn norms_and_activations_are_candles(rows in 1_usize..40, half in 1_usize..300, seed: u64) {
        let threads = Threads::new(2);
        let (x, y) = (tensor(&[rows, 2 * half], seed), tensor(&[rows, 2 * half], !seed));
        let weight = tensor(&[2 * half], 3);
        let normed = rms_norm(&threads, &x, &weight, 1e-6).unwrap();
        assert_near(&normed, &fallback::rms_norm(&x, &weight, 1e-6).unwrap(), 2e-6);
        let (sum, normed) = add_rms_norm(&threads, &x, &y, &weight, 1e-6).unwrap();
        assert_bits(&sum, &(&x + &y).unwrap());
        assert_near(&normed, &fallback::rms_norm(&sum, &weight, 1e-6).unwrap(), 2e-6);
        let wide = (&x * 20.0).unwrap();
        assert_near(&silu_mul(&threads, &wide).unwrap(), &fallback::silu_mul(&wide).unwrap(), 1e-6);
        assert_near(&gelu(&threads, &wide).unwrap(), &wide.gelu_erf().unwrap(), 1e-6);
    }

    #[test]
    fn causal_attention_is_candles_in_one_piece_and_in_many(heads in heads(), tokens in 1_usize..600, cuts in prop::collection::vec(1_usize..600, 0..4), seed: u64) {
        let qkv = (tensor(&[tokens, (heads.query + 2 * heads.kv) * heads.dim], seed) * 3.0).unwrap();
        let all = rotary(0, tokens, heads.dim);
        let mut whole = KvCache::new(heads.kv, heads.dim);
        let out = causal_attention(&Threads::new(2), &qkv, &all, &heads, &mut whole).unwrap();
        assert_eq!(whole.len(), tokens);
        assert_near(&out, &causal_reference(&qkv, &all, &heads), 2e-5);

        let mut bounds: Vec<usize> = cuts.into_iter().filter(|cut| *cut < tokens).chain([0, tokens]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let mut cache = KvCache::new(heads.kv, heads.dim);
        let pieces: Vec<Tensor> = bounds.windows(2).map(|bound| {
            let part = qkv.narrow(0, bound[0], bound[1] - bound[0]).unwrap();
            let angles = rotary(bound[0], bound[1] - bound[0], heads.dim);
            causal_attention(&Threads::new(1), &part, &angles, &heads, &mut cache).unwrap()
        }).collect();
        assert_bits(&Tensor::cat(&pieces, 0).unwrap(), &out);
    }

    #[test]
    fn a_rolled_back_cache_is_as_if_the_tokens_never_came(heads in heads(), kept in 1_usize..80, dropped in 1_usize..80, more in 1_usize..5) {
        let threads = Threads::new(2);
        let width = (heads.query + 2 * heads.kv) * heads.dim;
        let feed = |cache: &mut KvCache, tokens: usize, seed: u64| {
            let angles = rotary(cache.len(), tokens, heads.dim);
            causal_attention(&threads, &tensor(&[tokens, width], seed), &angles, &heads, cache).unwrap()
        };
        let mut rolled = KvCache::new(heads.kv, heads.dim);
        feed(&mut rolled, kept, 1);
        let mut straight = rolled.clone();
        feed(&mut rolled, dropped, 2);
        rolled.truncate(kept).unwrap();
        assert_eq!(rolled.len(), kept);
        rolled.shrink();
        let keys = kept.next_multiple_of(32) * heads.dim;
        let values = kept * heads.dim.next_multiple_of(32);
        assert_eq!(rolled.bytes(), heads.kv * (keys + values) * size_of::<f32>());
        assert_bits(&feed(&mut rolled, more, 3), &feed(&mut straight, more, 3));
    }

    #[test]
    fn segment_attention_is_candles(heads in heads(), lengths in prop::collection::vec(0_usize..90, 1..6)) {
        let bounds: Vec<u32> = [0].into_iter().chain(lengths.iter().scan(0, |sum, length| {
            *sum += *length as u32;
            Some(*sum)
        })).collect();
        let tokens: usize = lengths.iter().sum();
        prop_assume!(tokens > 0);
        let qkv = (tensor(&[tokens, (heads.query + 2 * heads.kv) * heads.dim], 5) * 3.0).unwrap();
        let angles = rotary(0, tokens, heads.dim);
        let out = segment_attention(&Threads::new(2), &qkv, &angles, &heads, &bounds).unwrap();
        let (q, k, v) = fallback::split_and_rotate(&qkv, &angles, &heads).unwrap();
        let reference: Vec<Tensor> = bounds.windows(2).filter(|bound| bound[0] < bound[1]).map(|bound| {
            let part = |t: &Tensor| t.narrow(1, bound[0] as usize, (bound[1] - bound[0]) as usize).unwrap();
            fallback::attend(&part(&q), &part(&k), &part(&v), &heads, false).unwrap()
        }).collect();
        assert_near(&out, &Tensor::cat(&reference, 0).unwrap(), 2e-5);
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let threads = Threads::new(1);
    let heads = Heads { query: 2, kv: 1, dim: 4 };
    let qkv = tensor(&[3, 16], 1);
    let angles = rotary(0, 3, 4);
    assert!(segment_attention(&threads, &qkv, &angles, &heads, &[0, 2]).is_err());
    assert!(segment_attention(&threads, &qkv, &angles, &heads, &[0, 2, 1, 3]).is_err());
    assert!(segment_attention(&threads, &tensor(&[3, 15], 1), &angles, &heads, &[0, 3]).is_err());
    assert!(causal_attention(&threads, &qkv, &angles, &heads, &mut KvCache::new(1, 8)).is_err());
    assert!(causal_attention(&threads, &qkv, &rotary(0, 2, 4), &heads, &mut KvCache::new(1, 4)).is_err());
    let weight = tensor(&[5, 7], 1);
    let linear = Linear::new(&threads, &[Part { weight: &weight, bias: None }]).unwrap();
    assert!(linear.forward(&tensor(&[2, 6], 1)).is_err());
    assert!(linear.rows(&[5]).is_err());
    assert!(Linear::new(&threads, &[]).is_err());
    assert!(rms_norm(&threads, &tensor(&[2, 6], 1), &tensor(&[7], 1), 1e-6).is_err());
}
