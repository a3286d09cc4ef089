//! The CPU code against candle's operations, over odd shapes; and that rows and threads do not change a bit.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::{
    Heads, KvCache, KvMeter, KvSpan, Linear, Part, Rotary, Threads, add_rms_norm, causal_attention, fallback,
    gelu, rms_norm, segment_attention, silu_mul,
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

/// One sequence's attention.
fn causal(threads: &Threads, qkv: &Tensor, rotary: &Rotary, heads: &Heads, cache: &mut KvCache) -> Tensor {
    let tokens = qkv.dim(0).unwrap();
    causal_attention(threads, qkv, rotary, heads, &mut [KvSpan { cache, tokens, tree: None }]).unwrap()
}

fn qkv(tokens: usize, heads: &Heads, seed: u64) -> Tensor {
    (tensor(&[tokens, (heads.query + 2 * heads.kv) * heads.dim], seed) * 3.0).unwrap()
}

/// Angles of these positions.
fn angles(positions: &[usize], dim: usize) -> Rotary {
    let rows: Vec<Rotary> = positions.iter().map(|at| rotary(*at, 1, dim)).collect();
    let table =
        |of: fn(&Rotary) -> &Tensor| Tensor::cat(&rows.iter().map(of).collect::<Vec<_>>(), 0).unwrap();
    Rotary { cos: table(|row| &row.cos), sin: table(|row| &row.sin) }
}

fn causal_reference(qkv: &Tensor, rotary: &Rotary, heads: &Heads) -> Tensor {
    let (q, k, v) = fallback::split_and_rotate(qkv, rotary, heads).unwrap();
    fallback::attend(&q, &k, &v, heads, fallback::Mask::Causal).unwrap()
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
        let out = causal(&Threads::new(2), &qkv, &all, &heads, &mut whole);
        assert_eq!(whole.len(), tokens);
        assert_near(&out, &causal_reference(&qkv, &all, &heads), 2e-5);

        let mut bounds: Vec<usize> = cuts.into_iter().filter(|cut| *cut < tokens).chain([0, tokens]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let mut cache = KvCache::new(heads.kv, heads.dim);
        let pieces: Vec<Tensor> = bounds.windows(2).map(|bound| {
            let part = qkv.narrow(0, bound[0], bound[1] - bound[0]).unwrap();
            let angles = rotary(bound[0], bound[1] - bound[0], heads.dim);
            causal(&Threads::new(1), &part, &angles, &heads, &mut cache)
        }).collect();
        assert_bits(&Tensor::cat(&pieces, 0).unwrap(), &out);
    }

    #[test]
    fn a_rolled_back_cache_is_as_if_the_tokens_never_came(heads in heads(), kept in 1_usize..80, dropped in 1_usize..80, more in 1_usize..5) {
        let threads = Threads::new(2);
        let width = (heads.query + 2 * heads.kv) * heads.dim;
        let feed = |cache: &mut KvCache, tokens: usize, seed: u64| {
            let angles = rotary(cache.len(), tokens, heads.dim);
            causal(&threads, &tensor(&[tokens, width], seed), &angles, &heads, cache)
        };
        let mut rolled = KvCache::new(heads.kv, heads.dim);
        feed(&mut rolled, kept, 1);
        let mut straight = rolled.clone();
        feed(&mut rolled, dropped, 2);
        rolled.truncate(kept);
        assert_eq!(rolled.len(), kept);
        assert_bits(&feed(&mut rolled, more, 3), &feed(&mut straight, more, 3));
    }

    #[test]
    fn spans_of_many_sequences_are_those_of_each_alone(heads in heads(), spans in prop::collection::vec((0_usize..300, prop_oneof![Just(1_usize), 1_usize..90]), 1..6), seed: u64) {
        let threads = Threads::new(2);
        let mut caches: Vec<KvCache> = spans.iter().enumerate().map(|(number, (before, _))| {
            let mut cache = KvCache::new(heads.kv, heads.dim);
            if *before > 0 {
                causal(&threads, &qkv(*before, &heads, number as u64), &rotary(0, *before, heads.dim), &heads, &mut cache);
            }
            cache
        }).collect();
        let total: usize = spans.iter().map(|(_, tokens)| tokens).sum();
        let input = qkv(total, &heads, seed);
        let positions: Vec<usize> = spans.iter().flat_map(|(before, tokens)| *before..before + tokens).collect();
        let all = angles(&positions, heads.dim);
        // Forks, so that the batch also shows that writing to one leaves the other as it was.
        let mut forks = caches.clone();
        let mut batch: Vec<KvSpan<'_>> =
            forks.iter_mut().zip(&spans).map(|(cache, (_, tokens))| KvSpan { cache, tokens: *tokens, tree: None }).collect();
        let together = causal_attention(&threads, &input, &all, &heads, &mut batch).unwrap();
        let mut first = 0;
        for (cache, (before, tokens)) in caches.iter_mut().zip(&spans) {
            assert_eq!(cache.len(), *before);
            let part = input.narrow(0, first, *tokens).unwrap();
            let alone = causal(&Threads::new(1), &part, &rotary(*before, *tokens, heads.dim), &heads, cache);
            assert_bits(&alone, &together.narrow(0, first, *tokens).unwrap());
            first += tokens;
        }
    }

    #[test]
    fn a_path_through_a_tree_is_as_if_it_had_come_alone(heads in heads(), before in 0_usize..300, parents in prop::collection::vec(prop::option::of(0_usize..30), 1..30), picked: prop::sample::Index) {
        let threads = Threads::new(2);
        let tree: Vec<Option<usize>> = parents.iter().enumerate().map(|(at, parent)| parent.filter(|parent| *parent < at)).collect();
        let path_to = |token: usize| {
            let mut path: Vec<usize> = std::iter::successors(Some(token), |&at| tree[at]).collect();
            path.reverse();
            path
        };
        let mut cache = KvCache::new(heads.kv, heads.dim);
        if before > 0 {
            causal(&threads, &qkv(before, &heads, 1), &rotary(0, before, heads.dim), &heads, &mut cache);
        }
        let mut alone = cache.clone();
        let input = qkv(tree.len(), &heads, 2);
        let positions: Vec<usize> = (0..tree.len()).map(|token| before + path_to(token).len() - 1).collect();
        let turned = angles(&positions, heads.dim);
        let mut spans = [KvSpan { cache: &mut cache, tokens: tree.len(), tree: Some(&tree) }];
        let together = causal_attention(&threads, &input, &turned, &heads, &mut spans).unwrap();
        let path = path_to(picked.index(tree.len()));
        for (depth, &token) in path.iter().enumerate() {
            let row = causal(&threads, &input.narrow(0, token, 1).unwrap(), &rotary(before + depth, 1, heads.dim), &heads, &mut alone);
            assert_bits(&row, &together.narrow(0, token, 1).unwrap());
        }
        // What follows the path sees it alone, once the rest is dropped.
        cache.keep(before, &path).unwrap();
        assert_eq!(cache.len(), alone.len());
        let (next, turn) = (qkv(1, &heads, 3), rotary(cache.len(), 1, heads.dim));
        assert_bits(&causal(&threads, &next, &turn, &heads, &mut cache), &causal(&threads, &next, &turn, &heads, &mut alone));
        // The other devices' way of the same.
        let (q, k, v) = fallback::split_and_rotate(&input, &turned, &heads).unwrap();
        if before == 0 {
            assert_near(&together, &fallback::attend(&q, &k, &v, &heads, fallback::Mask::Tree(&tree)).unwrap(), 2e-5);
        }
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
            fallback::attend(&part(&q), &part(&k), &part(&v), &heads, fallback::Mask::None).unwrap()
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
    let refused = |rotary: &Rotary, dim, tokens, tree: Option<&[Option<usize>]>| {
        let mut cache = KvCache::new(1, dim);
        let mut spans = [KvSpan { cache: &mut cache, tokens, tree }];
        causal_attention(&threads, &qkv, rotary, &heads, &mut spans).is_err()
    };
    assert!(!refused(&angles, 4, 3, Some(&[None, Some(0), Some(0)])));
    assert!(refused(&angles, 8, 3, None));
    assert!(refused(&rotary(0, 2, 4), 4, 3, None));
    assert!(refused(&angles, 4, 2, None));
    assert!(refused(&angles, 4, 3, Some(&[None, Some(0)])));
    assert!(refused(&angles, 4, 3, Some(&[None, Some(2), Some(1)])));
    let mut cache = KvCache::new(1, 4);
    causal(&threads, &qkv, &angles, &heads, &mut cache);
    assert!(cache.keep(1, &[1, 0]).is_err());
    assert!(cache.keep(1, &[2]).is_err());
    let weight = tensor(&[5, 7], 1);
    let linear = Linear::new(&threads, &[Part { weight: &weight, bias: None }]).unwrap();
    assert!(linear.forward(&tensor(&[2, 6], 1)).is_err());
    assert!(linear.rows(&[5]).is_err());
    assert!(Linear::new(&threads, &[]).is_err());
    assert!(rms_norm(&threads, &tensor(&[2, 6], 1), &tensor(&[7], 1), 1e-6).is_err());
}

#[test]
fn forks_share_memory_until_they_are_written_to() {
    let (threads, heads) = (Threads::new(1), Heads { query: 2, kv: 1, dim: 32 });
    let meter = KvMeter::default();
    let block = 256 * 2 * 32 * size_of::<f32>();
    let mut cache = KvCache::metered(1, 32, &meter);
    let feed = |cache: &mut KvCache, tokens: usize| {
        causal(&threads, &qkv(tokens, &heads, 1), &rotary(cache.len(), tokens, 32), &heads, cache);
    };
    feed(&mut cache, 300);
    assert_eq!((meter.bytes(), cache.bytes()), (2 * block, 2 * block));
    let mut forks = [cache.clone(), cache.clone()];
    assert_eq!(meter.bytes(), 2 * block);
    feed(&mut forks[0], 1);
    assert_eq!(meter.bytes(), 3 * block, "the block written to is copied, the full one is not");
    drop(cache);
    assert_eq!(meter.bytes(), 3 * block);
    feed(&mut forks[1], 1);
    assert_eq!(meter.bytes(), 3 * block, "the last owner writes in place");
    forks[0].truncate(256);
    assert_eq!(meter.bytes(), 2 * block);
    drop(forks);
    assert_eq!(meter.bytes(), 0);
}

/// What a GPU does, on the CPU: f64 is none of our kernels' types.
#[test]
fn caches_of_tensors_are_forked_cut_and_kept() {
    let (threads, heads) = (Threads::new(1), Heads { query: 4, kv: 2, dim: 8 });
    let wide = |tokens: usize, seed: u64| qkv(tokens, &heads, seed).to_dtype(DType::F64).unwrap();
    let meter = KvMeter::default();
    let mut tensors = KvCache::metered(2, 8, &meter);
    let mut ours = KvCache::new(2, 8);
    let near = |theirs: Tensor, ours: Tensor| assert_near(&ours, &theirs.to_dtype(DType::F32).unwrap(), 2e-5);
    let first = rotary(0, 300, 8);
    near(
        causal(&threads, &wide(300, 1), &first, &heads, &mut tensors),
        causal(&threads, &qkv(300, &heads, 1), &first, &heads, &mut ours),
    );
    let (fork, our_fork) = (tensors.clone(), ours.clone());
    let tree = [None, Some(0), Some(0), Some(2)];
    let turned = angles(&[300, 301, 301, 302], 8);
    let step = |cache: &mut KvCache, input: Tensor| {
        let mut spans = [KvSpan { cache, tokens: 4, tree: Some(&tree) }];
        causal_attention(&threads, &input, &turned, &heads, &mut spans).unwrap()
    };
    near(step(&mut tensors, wide(4, 2)), step(&mut ours, qkv(4, &heads, 2)));
    for cache in [&mut tensors, &mut ours] {
        cache.keep(300, &[0, 2, 3]).unwrap();
        assert_eq!(cache.len(), 303);
    }
    for (mut cache, mut our) in [(tensors, ours), (fork, our_fork)] {
        let turn = rotary(cache.len(), 2, 8);
        near(
            causal(&threads, &wide(2, 3), &turn, &heads, &mut cache),
            causal(&threads, &qkv(2, &heads, 3), &turn, &heads, &mut our),
        );
        cache.truncate(5);
        our.truncate(5);
        let turn = rotary(5, 1, 8);
        near(
            causal(&threads, &wide(1, 4), &turn, &heads, &mut cache),
            causal(&threads, &qkv(1, &heads, 4), &turn, &heads, &mut our),
        );
    }
    assert_eq!(meter.bytes(), 0);
}
