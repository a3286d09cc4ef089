//! The innermost loop: up to 6 rows of activations times a panel of 32 columns of blocks.
//!
//! For each row and column, block after block: `sum = (scale of the weights · Σ whole products [- minimum · Σ whole
//! activations]) · scale of the activations + sum`, the last step fused. What is whole is added up in i32, exactly.

use std::sync::LazyLock;

use super::super::tile::{PANEL, Sums};
use super::activations::WORDS;
use super::repack::half;
use super::{BLOCK, BlockType};

/// Most rows of a tile: 6 × 2 sums in i32 and as many in f32 leave 8 of AVX-512's registers.
pub(super) const ROWS: usize = 6;

/// Bytes of a panel's block of `q8_0`: 32 scales in f16, then `[8][32][4]` weights, each + 128.
pub(super) const Q8_BYTES: usize = PANEL * (2 + BLOCK);
/// Bytes of a panel's 32 terms of `q4_K`: 32 scales and 32 minima of 6 bits, then `[4][32][4]` bytes, of which the low
/// half is a weight of word `i` and the high half one of word `4 + i`.
pub(super) const Q4_PART_BYTES: usize = PANEL * (2 + BLOCK / 2);
/// Bytes before a panel's 256 terms of `q4_K`: 32 f16 scales of the scales, 32 of the minima.
pub(super) const Q4_HEAD_BYTES: usize = PANEL * 4;
/// Bytes of a panel's block of `q4_K`: the head, and eight times 32 terms.
pub(super) const Q4_BYTES: usize = Q4_HEAD_BYTES + 8 * Q4_PART_BYTES;

/// One call of the innermost loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Blocks of 32 terms; a multiple of 8 for `q4_K`.
    pub(super) blocks: usize,
    /// Rows, 1 to [`ROWS`].
    pub(super) rows: usize,
    /// Activations as `activations` packs them.
    pub(super) a: *const i32,
    /// A panel's blocks.
    pub(super) b: *const u8,
    pub(super) kind: BlockType,
    /// The sums start from a bias (stride 0), or go on in `out`.
    pub(super) sums: Sums,
}

pub(super) type TileCode = unsafe fn(&Tile);

/// The code for one set of instructions, by type and rows.
pub(super) struct Codes {
    pub(super) q8: [TileCode; ROWS],
    pub(super) q4: [TileCode; ROWS],
}

macro_rules! codes {
    ($q8:path, $q4:path) => {
        Codes { q8: codes!($q8), q4: codes!($q4) }
    };
    ($code:path) => {{
        use $code as code;
        [code::<1>, code::<2>, code::<3>, code::<4>, code::<5>, code::<6>]
    }};
}

impl Codes {
    /// What every machine runs.
    pub(super) fn portable() -> Self {
        codes!(self::portable_q8, self::portable_q4)
    }

    /// AVX2, where this machine has it.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn avx2() -> Option<Self> {
        let here = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        here.then(|| codes!(super::avx2::q8, super::avx2::q4))
    }

    /// AVX-512 with VNNI, where this machine has it.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn avx512() -> Option<Self> {
        let here = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        here.then(|| codes!(super::avx512::q8, super::avx512::q4))
    }
}

static CODES: LazyLock<Codes> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    if let Some(codes) = Codes::avx512().or_else(Codes::avx2) {
        return codes;
    }
    Codes::portable()
});

impl Tile {
    /// Computes it.
    ///
    /// # Safety
    /// All pointers are valid for what the fields say, and `out` overlaps no other call's.
    #[expect(unsafe_code, reason = "tiles are addressed by pointers")]
    pub(super) unsafe fn compute(&self) {
        // SAFETY: the code was chosen for this machine; the pointers are the caller's promise.
        unsafe { self.compute_by(&CODES) }
    }

    /// Computes it by this code.
    ///
    /// # Safety
    /// As for [`Tile::compute`]; the machine has the code's instructions.
    #[expect(unsafe_code, reason = "tiles are addressed by pointers")]
    pub(super) unsafe fn compute_by(&self, codes: &Codes) {
        let code = match self.kind {
            BlockType::Q8_0 => codes.q8[self.rows - 1],
            BlockType::Q4K => codes.q4[self.rows - 1],
        };
        // SAFETY: the caller's promise.
        unsafe { code(self) }
    }
}

/// The activations of one block of a tile of `R` rows.
#[derive(Clone, Copy)]
pub(super) struct Activations<const R: usize>(pub(super) *const i32);

#[expect(unsafe_code, reason = "tiles are addressed by pointers")]
impl<const R: usize> Activations<R> {
    /// # Safety
    /// The block is there, `row < R`.
    #[inline(always)]
    pub(super) unsafe fn scale(self, row: usize) -> f32 {
        // SAFETY: the caller's promise, here and below.
        f32::from_bits(unsafe { *self.0.add(row) }.cast_unsigned())
    }

    /// # Safety
    /// The block is there, `row < R`.
    #[inline(always)]
    pub(super) unsafe fn sum(self, row: usize) -> i32 {
        // SAFETY: as above.
        unsafe { *self.0.add(R + row) }
    }

    /// Four consecutive numbers.
    ///
    /// # Safety
    /// The block is there, `word < 8` and `row < R`.
    #[inline(always)]
    pub(super) unsafe fn word(self, word: usize, row: usize) -> i32 {
        // SAFETY: as above.
        unsafe { *self.0.add((2 + word) * R + row) }
    }

    /// The next block.
    #[inline(always)]
    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(R * WORDS))
    }
}

/// # Safety
/// See [`Tile::compute`].
#[expect(unsafe_code, reason = "tiles are addressed by pointers")]
unsafe fn portable_q8<const R: usize>(tile: &Tile) {
    // SAFETY: rows, blocks and panel are within what the caller vouches for.
    unsafe {
        start(tile);
        let mut a = Activations::<R>(tile.a);
        for block in 0..tile.blocks {
            let b = std::slice::from_raw_parts(tile.b.add(block * Q8_BYTES), Q8_BYTES);
            let (scales, weights) = b.split_at(2 * PANEL);
            for row in 0..R {
                let dots = dots(weights, |word| a.word(word, row));
                let (sum, scale) = (a.sum(row), a.scale(row));
                let out =
                    std::slice::from_raw_parts_mut(tile.sums.out.add(row * tile.sums.out_stride), PANEL);
                for (column, out) in out.iter_mut().enumerate() {
                    let dot = dots[column] - 128 * sum;
                    *out = (dot as f32 * half(scales, column)).mul_add(scale, *out);
                }
            }
            a = a.next();
        }
    }
}

/// # Safety
/// See [`Tile::compute`].
#[expect(unsafe_code, reason = "tiles are addressed by pointers")]
unsafe fn portable_q4<const R: usize>(tile: &Tile) {
    // SAFETY: rows, blocks and panel are within what the caller vouches for.
    unsafe {
        start(tile);
        let mut a = Activations::<R>(tile.a);
        for block in 0..tile.blocks {
            let whole = std::slice::from_raw_parts(tile.b.add(block / 8 * Q4_BYTES), Q4_BYTES);
            let (head, parts) = whole.split_at(Q4_HEAD_BYTES);
            let (scales, rest) = parts[block % 8 * Q4_PART_BYTES..][..Q4_PART_BYTES].split_at(PANEL);
            let (minima, pairs) = rest.split_at(PANEL);
            let mut weights = [0; BLOCK * PANEL];
            let (low, high) = weights.split_at_mut(BLOCK / 2 * PANEL);
            for ((low, high), pair) in low.iter_mut().zip(high).zip(pairs) {
                (*low, *high) = (pair & 15, pair >> 4);
            }
            for row in 0..R {
                let dots = dots(&weights, |word| a.word(word, row));
                let (sum, scale) = (a.sum(row) as f32, a.scale(row));
                let out =
                    std::slice::from_raw_parts_mut(tile.sums.out.add(row * tile.sums.out_stride), PANEL);
                for (column, out) in out.iter_mut().enumerate() {
                    let weight_scale = half(head, column) * f32::from(scales[column]);
                    let minimum = half(head, PANEL + column) * f32::from(minima[column]);
                    let term = (-minimum).mul_add(sum, dots[column] as f32 * weight_scale);
                    *out = term.mul_add(scale, *out);
                }
            }
            a = a.next();
        }
    }
}

/// Sets the rows of `out` to what the sums start from.
///
/// # Safety
/// See [`Tile::compute`].
#[expect(unsafe_code, reason = "tiles are addressed by pointers")]
unsafe fn start(tile: &Tile) {
    for row in 0..tile.rows {
        // SAFETY: the rows are there; where `init` is `out` itself they are the same.
        unsafe {
            let out = tile.sums.out.add(row * tile.sums.out_stride);
            out.copy_from(tile.sums.init.add(row * tile.sums.init_stride), PANEL);
        }
    }
}

/// Whole products of weights `[8][32][4]` with a row's words.
fn dots(weights: &[u8], word: impl Fn(usize) -> i32) -> [i32; PANEL] {
    let mut dots = [0; PANEL];
    for (index, columns) in weights.chunks_exact(4 * PANEL).enumerate() {
        let numbers = word(index).to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
        for (dot, four) in dots.iter_mut().zip(columns.as_chunks::<4>().0) {
            for (weight, number) in four.iter().zip(numbers) {
                *dot += i32::from(*weight) * number;
            }
        }
    }
    dots
}
