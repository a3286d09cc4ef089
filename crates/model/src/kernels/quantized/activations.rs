//! Rows of activations as blocks of 32 whole numbers of 8 bits.
//!
//! A tile of `R` rows is `[block]` of 10·R words: R scales (f32, as bits), R sums of the block's whole numbers, and
//! `[8][R]` words of four consecutive numbers each.

use super::super::Threads;
use super::super::dispatch::vectorised;
use super::BLOCK;

/// Words of a row's block.
pub(super) const WORDS: usize = 2 + BLOCK / 4;
/// Rows below so many values are packed by the calling thread alone.
const ALONE: usize = 1 << 15;

/// Packs `[rows][inputs]` in tiles of `tile_rows`, the last one with what is left.
pub(super) fn pack(threads: &Threads, x: &[f32], inputs: usize, tile_rows: usize) -> Vec<i32> {
    let mut packed = vec![0; x.len() / BLOCK * WORDS];
    let mut tiles: Vec<&mut [i32]> = packed.chunks_mut(tile_rows * inputs / BLOCK * WORDS).collect();
    let pack = |index: usize, tile: &mut &mut [i32]| {
        let from = index * tile_rows * inputs;
        pack_tile(&x[from..x.len().min(from + tile_rows * inputs)], inputs, tile);
    };
    if x.len() < ALONE {
        tiles.iter_mut().enumerate().for_each(|(index, tile)| pack(index, tile));
    } else {
        threads.for_each(&mut tiles, &pack);
    }
    packed
}

fn pack_tile(x: &[f32], inputs: usize, tile: &mut [i32]) {
    let rows = x.len() / inputs;
    for (row, values) in x.chunks_exact(inputs).enumerate() {
        for (block, to) in values.as_chunks().0.iter().zip(tile.chunks_exact_mut(rows * WORDS)) {
            let mut numbers = [0; BLOCK];
            let (scale, sum) = quantize(block, &mut numbers);
            to[row] = scale.to_bits().cast_signed();
            to[rows + row] = sum;
            for (to, four) in to[2 * rows + row..].iter_mut().step_by(rows).zip(numbers.as_chunks().0) {
                *to = i32::from_le_bytes(four.map(i8::cast_unsigned));
            }
        }
    }
}

/// The scale and the sum of the whole numbers that `x` becomes: `x ≈ scale · numbers`.
///
/// A value that is no number makes the scale none, so that it is seen in the result.
fn quantize(x: &[f32; BLOCK], numbers: &mut [i8; BLOCK]) -> (f32, i32) {
    /// Below it 127 divided by it overflows; such values count as zeros.
    const SMALLEST: f32 = 1e-30;
    let (largest, check) = largest(x);
    if largest < SMALLEST {
        return (check, 0);
    }
    (largest / 127.0 + check, round(x, 127.0 / largest, numbers))
}

vectorised! {
    /// The largest size, and 0, or what is no number where a value is none or infinite.
    pub(super) fn largest(x: &[f32; 32]) -> (f32, f32) {
        let (mut largest, mut check) = ([0.0_f32; 16], [0.0_f32; 16]);
        for half in x.as_chunks::<16>().0 {
            for (lane, value) in half.iter().enumerate() {
                let size = value.abs();
                largest[lane] = if size > largest[lane] { size } else { largest[lane] };
                check[lane] += value * 0.0;
            }
        }
        let largest = largest.iter().fold(0.0_f32, |all, one| if *one > all { *one } else { all });
        (largest, check.iter().sum())
    }
}

vectorised! {
    /// `factor · x` rounded to whole numbers, ties to even, and their sum.
    pub(super) fn round(x: &[f32; 32], factor: f32, numbers: &mut [i8; 32]) -> i32 {
        // Adding 1.5 · 2²³ rounds to a whole number, which then stands in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let mut sum = 0;
        for (number, value) in numbers.iter_mut().zip(x) {
            let whole = (value * factor + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
            *number = whole as i8;
            sum += i32::from(whole as i8);
        }
        sum
    }
}
