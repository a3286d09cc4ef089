//! Blocks and products against candle's own dequantised weights, and the codes for this machine against each other.

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::super::tests::{assert_bits, tensor, values};
use super::super::tile::{PANEL, Sums};
use super::super::{Linear, QuantizedPart, QuantizedWeight, Threads};
use super::activations::{WORDS, pack};
use super::tile::{Codes, ROWS, Tile};
use super::{BLOCK, BlockType};

fn kinds() -> impl Strategy<Value = BlockType> {
    prop_oneof![Just(BlockType::Q8_0), Just(BlockType::Q4K)]
}

fn linear(threads: usize, weight: &Tensor, kind: BlockType, bias: Option<&Tensor>) -> Linear {
    let part = QuantizedPart { weight: QuantizedWeight::Floats { values: weight, kind }, bias };
    Linear::quantized(&Threads::new(threads), weight.dims()[1], &[part]).unwrap()
}

fn dequantized(weight: &Tensor, kind: BlockType) -> Tensor {
    QTensor::quantize(weight, kind.ggml()).unwrap().dequantize(&Device::Cpu).unwrap()
}

/// What a code computes with one panel of random bytes for `rows` rows.
#[expect(unsafe_code, reason = "tiles are addressed by pointers")]
fn compute(codes: &Codes, kind: BlockType, rows: usize) -> Vec<f32> {
    const INPUTS: usize = 512;
    let row = INPUTS / kind.weights() * kind.bytes();
    let mut panel = vec![0; INPUTS / kind.weights() * kind.panel_bytes()];
    for column in 0..PANEL {
        let mut bytes: Vec<u8> =
            (0..row).map(|at| ((at * 7919 + column * 104_729) % 65_521 / 32) as u8).collect();
        for block in bytes.chunks_exact_mut(kind.bytes()) {
            // Scales that are numbers: 0.5 to 2.
            (block[1], block[3]) =
                (0x38 | block[1] & 7, if kind == BlockType::Q4K { 0x38 } else { block[3] });
        }
        kind.set_column(&mut panel, column, &bytes);
    }
    let x: Vec<f32> = (0..rows * INPUTS).map(|at| ((at * 7919 % 257) as f32 - 128.0) / 9.0).collect();
    let a = pack(&Threads::new(1), &x, INPUTS, rows);
    assert_eq!(a.len(), rows * INPUTS / BLOCK * WORDS);
    let bias: Vec<f32> = (0..PANEL).map(|column| column as f32).collect();
    let mut out = vec![f32::NAN; rows * PANEL];
    let sums = Sums { init: bias.as_ptr(), init_stride: 0, out: out.as_mut_ptr(), out_stride: PANEL };
    let tile = Tile { blocks: INPUTS / BLOCK, rows, a: a.as_ptr(), b: panel.as_ptr(), kind, sums };
    // SAFETY: the callers ask for code that this machine has; all sizes are as the fields say.
    unsafe { tile.compute_by(codes) };
    out
}

#[test]
fn all_codes_give_the_same_bits() {
    let mut others: Vec<(&str, Codes)> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        others.extend(Codes::avx2().map(|codes| ("AVX2", codes)));
        others.extend(Codes::avx512().map(|codes| ("AVX-512", codes)));
    }
    for kind in [BlockType::Q8_0, BlockType::Q4K] {
        for rows in 1..=ROWS {
            let portable = compute(&Codes::portable(), kind, rows);
            assert!(portable.iter().all(|value| value.is_finite()), "{kind:?}");
            for (name, codes) in &others {
                assert_eq!(compute(codes, kind, rows), portable, "{kind:?}, {rows} rows, {name}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_candles_dequantised_ones(kind in kinds(), blocks in 1_usize..4, outputs in 1_usize..70, seed: u64) {
        let weight = tensor(&[outputs, blocks * kind.weights()], seed);
        let ids: Vec<u32> = (0..outputs as u32).collect();
        let rows = linear(2, &weight, kind, None).rows(&ids).unwrap();
        assert_bits(&rows, &dequantized(&weight, kind));
        let bytes = QTensor::quantize(&weight, kind.ggml()).unwrap().data().unwrap().into_owned();
        let part = QuantizedPart { weight: QuantizedWeight::Blocks { bytes: &bytes, kind, outputs }, bias: None };
        let used = Linear::quantized(&Threads::new(1), weight.dims()[1], &[part]).unwrap();
        assert_bits(&used.rows(&ids).unwrap(), &rows);
    }

    /// An activation is off by half a step at most, the 254th part of its block's largest; so a product is off by that
    /// times the sizes of the block's weights, and by what adding up in f32 rounds.
    #[test]
    fn products_are_within_the_bound_of_rounded_activations(kind in kinds(), rows in 1_usize..40, blocks in 1_usize..5, outputs in 1_usize..90, seed: u64) {
        let inputs = blocks * kind.weights();
        let (weight, bias) = (tensor(&[outputs, inputs], seed), tensor(&[outputs], !seed));
        let x = tensor(&[rows, inputs], seed.rotate_left(7));
        let out = values(&linear(2, &weight, kind, Some(&bias)).forward(&x).unwrap());
        let (weight, bias, x) = (values(&dequantized(&weight, kind)), values(&bias), values(&x));
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            for (output, weight) in weight.chunks_exact(inputs).enumerate() {
                let (mut exact, mut bound) = (f64::from(bias[output]), 1e-6);
                for (x, weight) in x.chunks_exact(BLOCK).zip(weight.chunks_exact(BLOCK)) {
                    let step = x.iter().fold(0.0_f32, |max, x| max.max(x.abs())) / 254.0;
                    for (x, weight) in x.iter().zip(weight) {
                        exact += f64::from(*x) * f64::from(*weight);
                        bound += f64::from(weight.abs()) * (f64::from(step) * 1.0001 + f64::from(x.abs()) * 1e-6);
                    }
                }
                let error = (f64::from(out[row * outputs + output]) - exact).abs();
                prop_assert!(error <= bound, "row {row}, output {output}: {error} over {bound}");
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others(kind in kinds(), rows in 2_usize..170, blocks in 1_usize..5, outputs in 1_usize..90) {
        let weight = tensor(&[outputs, blocks * kind.weights()], 2);
        let (x, bias) = (tensor(&[rows, blocks * kind.weights()], 1), tensor(&[outputs], 4));
        let all = linear(3, &weight, kind, Some(&bias)).forward(&x).unwrap();
        let single = linear(1, &weight, kind, Some(&bias));
        for row in 0..rows {
            let alone = single.forward(&x.narrow(0, row, 1).unwrap()).unwrap();
            assert_bits(&alone, &all.narrow(0, row, 1).unwrap());
        }
    }
}

#[test]
fn long_rows_are_summed_in_pieces_to_the_same_bits() {
    for kind in [BlockType::Q8_0, BlockType::Q4K] {
        let (weight, x) = (tensor(&[40, 2816], 3), tensor(&[200, 2816], 5));
        let layer = linear(2, &weight, kind, None);
        let all = layer.forward(&x).unwrap();
        for row in [0, 5, 6, 150, 199] {
            let alone = layer.forward(&x.narrow(0, row, 1).unwrap()).unwrap();
            assert_bits(&alone, &all.narrow(0, row, 1).unwrap());
        }
    }
}

#[test]
fn stacked_weights_keep_their_types() {
    let (first, second) = (tensor(&[33, 256], 1), tensor(&[50, 256], 2));
    let bias = tensor(&[50], 3);
    let q4 = QTensor::quantize(&second, BlockType::Q4K.ggml()).unwrap().data().unwrap().into_owned();
    let parts = [
        QuantizedPart {
            weight: QuantizedWeight::Floats { values: &first, kind: BlockType::Q8_0 },
            bias: None,
        },
        QuantizedPart {
            weight: QuantizedWeight::Blocks { bytes: &q4, kind: BlockType::Q4K, outputs: 50 },
            bias: Some(&bias),
        },
    ];
    let both = Linear::quantized(&Threads::new(2), 256, &parts).unwrap();
    assert_eq!((both.in_features(), both.out_features()), (256, 83));
    let x = tensor(&[9, 256], 4);
    let out = both.forward(&x).unwrap();
    let alone = linear(1, &first, BlockType::Q8_0, None).forward(&x).unwrap();
    assert_bits(&out.narrow(1, 0, 33).unwrap(), &alone);
    let alone = linear(1, &second, BlockType::Q4K, Some(&bias)).forward(&x).unwrap();
    assert_bits(&out.narrow(1, 33, 50).unwrap(), &alone);
    let rows = both.rows(&[32, 33, 82]).unwrap();
    let wanted = dequantized(&second, BlockType::Q4K);
    assert_bits(&rows.narrow(0, 2, 1).unwrap(), &wanted.narrow(0, 49, 1).unwrap());
    assert!(both.bytes() < 83 * 256 * 3 / 2);
}

#[test]
fn rows_of_no_whole_blocks_of_256_become_q8_0_and_others_are_refused() {
    let weight = tensor(&[5, 96], 1);
    let as_q8 = linear(1, &weight, BlockType::Q8_0, None).rows(&[4]).unwrap();
    assert_bits(&linear(1, &weight, BlockType::Q4K, None).rows(&[4]).unwrap(), &as_q8);
    let odd = tensor(&[5, 40], 1);
    let part = |weight| QuantizedPart { weight, bias: None };
    let floats = QuantizedWeight::Floats { values: &odd, kind: BlockType::Q8_0 };
    let error = Linear::quantized(&Threads::new(1), 40, &[part(floats)]).unwrap_err().to_string();
    assert!(error.contains("40") && error.contains("--dtype"), "{error}");
    let short = QuantizedWeight::Blocks { bytes: &[0; 33], kind: BlockType::Q8_0, outputs: 1 };
    assert!(Linear::quantized(&Threads::new(1), 32, &[part(short)]).is_err());
    assert!(Linear::quantized(&Threads::new(1), 32, &[]).is_err());
}

#[test]
fn what_is_no_number_is_seen_in_the_result_and_zeros_give_the_bias() {
    let layer = linear(1, &tensor(&[3, 64], 1), BlockType::Q8_0, Some(&tensor(&[3], 2)));
    let zeros = layer.forward(&Tensor::zeros((1, 64), DType::F32, &Device::Cpu).unwrap()).unwrap();
    assert_bits(&zeros, &tensor(&[1, 3], 2));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![0.5; 64];
        x[40] = bad;
        let out = layer.forward(&Tensor::from_vec(x, (1, 64), &Device::Cpu).unwrap()).unwrap();
        assert!(values(&out).iter().all(|value| !value.is_finite()), "{bad}");
    }
    let tiny = Tensor::full(1e-38_f32, (1, 64), &Device::Cpu).unwrap();
    assert!(values(&layer.forward(&tiny).unwrap()).iter().all(|value| value.is_finite()));
}
