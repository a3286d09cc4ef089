//! Blocks as files have them, `[outputs][blocks]`, become panels of 32 outputs, `[panel][blocks]`, and back to numbers.
//!
//! A block of `q8_0` is an f16 scale and 32 weights. A block of `q4_K` is an f16 scale of the scales, one of the minima,
//! 12 bytes of eight 6 bit scales and eight minima, and 128 bytes of weights: each 32 bytes hold the low half's 32, then the high half's.

use half::f16;

use super::super::tile::PANEL;
use super::tile::{Q4_BYTES, Q4_HEAD_BYTES, Q4_PART_BYTES, Q8_BYTES};
use super::{BLOCK, BlockType};

/// Bytes of a `q4_K` block before its weights.
const Q4_FILE_HEAD: usize = 16;

impl BlockType {
    /// Bytes of a panel's block.
    pub(super) fn panel_bytes(self) -> usize {
        match self {
            Self::Q8_0 => Q8_BYTES,
            Self::Q4K => Q4_BYTES,
        }
    }

    /// Writes a row of blocks into a column of a panel.
    pub(super) fn set_column(self, panel: &mut [u8], column: usize, row: &[u8]) {
        let blocks = panel.chunks_exact_mut(self.panel_bytes()).zip(row.chunks_exact(self.bytes()));
        for (to, block) in blocks {
            match self {
                Self::Q8_0 => set_q8(to, column, block),
                Self::Q4K => set_q4(to, column, block),
            }
        }
    }

    /// A column of a panel as numbers.
    pub(super) fn column(self, panel: &[u8], column: usize, row: &mut [f32]) {
        let blocks = panel.chunks_exact(self.panel_bytes()).zip(row.chunks_exact_mut(self.weights()));
        for (from, block) in blocks {
            match self {
                Self::Q8_0 => q8_numbers(from, column, block),
                Self::Q4K => q4_numbers(from, column, block),
            }
        }
    }
}

fn set_q8(to: &mut [u8], column: usize, block: &[u8]) {
    let (scales, weights) = to.split_at_mut(2 * PANEL);
    scales[2 * column..][..2].copy_from_slice(&block[..2]);
    let words = weights.chunks_exact_mut(4 * PANEL).zip(block[2..].as_chunks::<4>().0);
    for (to, four) in words {
        // Products of bytes want one side without sign.
        to[4 * column..][..4].copy_from_slice(&four.map(|weight| weight ^ 0x80));
    }
}

fn q8_numbers(from: &[u8], column: usize, block: &mut [f32]) {
    let (scales, weights) = from.split_at(2 * PANEL);
    let scale = half(scales, column);
    for (four, numbers) in weights.chunks_exact(4 * PANEL).zip(block.as_chunks_mut::<4>().0) {
        for (weight, number) in four[4 * column..].iter().zip(numbers) {
            *number = f32::from((weight ^ 0x80).cast_signed()) * scale;
        }
    }
}

fn set_q4(to: &mut [u8], column: usize, block: &[u8]) {
    let (head, parts) = to.split_at_mut(Q4_HEAD_BYTES);
    head[2 * column..][..2].copy_from_slice(&block[..2]);
    head[2 * (PANEL + column)..][..2].copy_from_slice(&block[2..4]);
    for (index, part) in parts.chunks_exact_mut(Q4_PART_BYTES).enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..Q4_FILE_HEAD], index);
        (part[column], part[PANEL + column]) = (scale, minimum);
        let bytes = &block[Q4_FILE_HEAD + index / 2 * BLOCK..][..BLOCK];
        let weight = |at: usize| if index.is_multiple_of(2) { bytes[at] & 15 } else { bytes[at] >> 4 };
        for at in 0..BLOCK / 2 {
            let to = 2 * PANEL + at / 4 * 4 * PANEL + 4 * column + at % 4;
            part[to] = weight(at) | weight(BLOCK / 2 + at) << 4;
        }
    }
}

fn q4_numbers(from: &[u8], column: usize, block: &mut [f32]) {
    let (head, parts) = from.split_at(Q4_HEAD_BYTES);
    let (scale_of, minimum_of) = (half(head, column), half(head, PANEL + column));
    for (part, numbers) in parts.chunks_exact(Q4_PART_BYTES).zip(block.chunks_exact_mut(BLOCK)) {
        let scale = scale_of * f32::from(part[column]);
        let minimum = minimum_of * f32::from(part[PANEL + column]);
        let (first, second) = numbers.split_at_mut(BLOCK / 2);
        for (at, (first, second)) in first.iter_mut().zip(second).enumerate() {
            let pair = part[2 * PANEL + at / 4 * 4 * PANEL + 4 * column + at % 4];
            *first = scale * f32::from(pair & 15) - minimum;
            *second = scale * f32::from(pair >> 4) - minimum;
        }
    }
}

/// Number `index` of the eight 6 bit scales, and of the minima, in their 12 bytes: the first four of each lie in the low
/// bits of bytes 0 to 3 and 4 to 7; of the others bytes 8 to 11 hold the low four bits and those bytes' high bits the rest.
fn scale_and_minimum(bytes: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        (bytes[index] & 63, bytes[4 + index] & 63)
    } else {
        let both = bytes[4 + index];
        (both & 15 | bytes[index - 4] >> 6 << 4, both >> 4 | bytes[index] >> 6 << 4)
    }
}

/// Number `index` of a run of f16.
pub(super) fn half(bytes: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32()
}
