//! The innermost loop: up to 12 rows times a panel of 32 columns.
//!
//! `out[m][n] = init[m][n] + Σ_k a[k][m] · b[k][n]`, the sum taken one `k` after the other with one fused multiply-add each.
//! So an element's bits depend neither on how many rows its tile has, nor on where a driver cuts the sum into pieces
//! that go on from what lies in `out`. AVX-512 and AVX2 give equal bits; the portable loop rounds twice per step.

use std::sync::LazyLock;

/// Most rows of a tile: 12 × 2 sums of 16, two columns of weights and a broadcast value fill the 32 registers of AVX-512.
pub(super) const ROWS: usize = 12;
/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// Weights of a panel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Panel {
    /// `[k][32]` f32.
    F32(*const f32),
    /// `[k][32]` bf16, as bits.
    Bf16(*const u16),
}

/// One call of the innermost loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Length of the sum.
    pub(super) depth: usize,
    /// Rows, 1 to [`ROWS`].
    pub(super) rows: usize,
    /// `[depth][rows]`.
    pub(super) a: *const f32,
    /// `[depth][32]`.
    pub(super) b: Panel,
    /// What the sums start from, rows of 32 values `init_stride` apart: a bias (stride 0), zeros, or `out` itself.
    pub(super) init: *const f32,
    pub(super) init_stride: usize,
    /// Rows of 32 values `out_stride` apart.
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

type TileCode = unsafe fn(&Tile);

/// The code for this machine, by weight type and rows.
struct Codes {
    f32: [TileCode; ROWS],
    bf16: [TileCode; ROWS],
}

macro_rules! codes {
    ($code:ident) => {
        Codes { f32: codes!($code, false), bf16: codes!($code, true) }
    };
    ($code:ident, $bf16:literal) => {
        [
            $code::<1, $bf16>,
            $code::<2, $bf16>,
            $code::<3, $bf16>,
            $code::<4, $bf16>,
            $code::<5, $bf16>,
            $code::<6, $bf16>,
            $code::<7, $bf16>,
            $code::<8, $bf16>,
            $code::<9, $bf16>,
            $code::<10, $bf16>,
            $code::<11, $bf16>,
            $code::<12, $bf16>,
        ]
    };
}

static CODES: LazyLock<Codes> = LazyLock::new(|| match super::dispatch::isa() {
    #[cfg(target_arch = "x86_64")]
    super::dispatch::Isa::Avx512 => codes!(avx512),
    #[cfg(target_arch = "x86_64")]
    super::dispatch::Isa::Avx2 => codes!(avx2),
    super::dispatch::Isa::Portable => codes!(portable),
});

impl Tile {
    /// Computes it.
    ///
    /// # Safety
    /// All pointers are valid for what the fields say, and `out` overlaps no other call's.
    #[expect(unsafe_code, reason = "tiles are addressed by pointers")]
    pub(super) unsafe fn compute(&self) {
        let codes = match self.b {
            Panel::F32(_) => &CODES.f32,
            Panel::Bf16(_) => &CODES.bf16,
        };
        // SAFETY: the code was chosen for this machine; the pointers are the caller's promise.
        unsafe { codes[self.rows - 1](self) }
    }

    /// Computes it where only the first `columns` of its 32 columns of `out` and of `init` exist.
    ///
    /// # Safety
    /// As for [`Tile::compute`], but `out` and, unless `init_is_whole`, `init` have rows of `columns` values.
    #[expect(unsafe_code, reason = "tiles are addressed by pointers")]
    pub(super) unsafe fn compute_edge(&self, columns: usize, init_is_whole: bool) {
        let Self { init, init_stride, out, out_stride, .. } = *self;
        let sums = Sums { init, init_stride, out, out_stride };
        // SAFETY: the caller's promise; the sums that the tile gets are whole.
        unsafe {
            at_edge(sums, (self.rows, columns), init_is_whole, |sums| {
                let Sums { init, init_stride, out, out_stride } = sums;
                Self { init, init_stride, out, out_stride, ..*self }.compute();
            });
        }
    }
}

/// Where a tile's sums start and where they go, rows of 32 values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    pub(super) init: *const f32,
    pub(super) init_stride: usize,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

/// Lets `compute` work on whole rows where only the first `columns` of 32 exist.
///
/// # Safety
/// `out` and, unless `init_is_whole`, `init` have `rows` rows, at most [`ROWS`], of `columns` values; `out` overlaps no
/// other call's. `compute` reads and writes `rows` rows of what it is given.
#[expect(unsafe_code, reason = "tiles are addressed by pointers")]
pub(super) unsafe fn at_edge(
    sums: Sums,
    (rows, columns): (usize, usize),
    init_is_whole: bool,
    compute: impl FnOnce(Sums),
) {
    let mut square = [0.0_f32; ROWS * PANEL];
    let mut whole = sums;
    if !init_is_whole {
        for row in 0..rows {
            // SAFETY: `columns` values exist there, and the square has room for ROWS rows.
            unsafe {
                let from = sums.init.add(row * sums.init_stride);
                from.copy_to_nonoverlapping(square.as_mut_ptr().add(row * PANEL), columns);
            }
        }
        (whole.init, whole.init_stride) = (square.as_ptr(), PANEL);
    }
    (whole.out, whole.out_stride) = (square.as_mut_ptr(), PANEL);
    compute(whole);
    for row in 0..rows {
        // SAFETY: as above.
        unsafe {
            let to = sums.out.add(row * sums.out_stride);
            to.copy_from_nonoverlapping(square.as_ptr().add(row * PANEL), columns);
        }
    }
}

/// # Safety
/// See [`Tile::compute`]; the machine has AVX-512 F and BW.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
unsafe fn avx512<const R: usize, const BF16: bool>(tile: &Tile) {
    use std::arch::x86_64::{
        __m256i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
        _mm512_storeu_ps,
    };
    let b = match tile.b {
        Panel::F32(b) => b.cast::<u8>(),
        Panel::Bf16(b) => b.cast::<u8>(),
    };
    let width = if BF16 { 2 } else { 4 };
    // SAFETY: rows, depth and panel are within what the caller vouches for. A prefetch may name any address.
    unsafe {
        let weights = |at: usize| {
            let from = b.add(at * width);
            if BF16 {
                let halves = _mm256_loadu_si256(from.cast::<__m256i>());
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
            } else {
                _mm512_loadu_ps(from.cast())
            }
        };
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        for (row, sum) in sums.iter_mut().enumerate() {
            let from = tile.init.add(row * tile.init_stride);
            *sum = [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))];
        }
        for k in 0..tile.depth {
            let columns = [weights(k * PANEL), weights(k * PANEL + 16)];
            if R <= 2 {
                // One or two rows run at the memory's pace; what the hardware fetches ahead by itself is too little.
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(k * PANEL * width + AHEAD).cast());
                if !BF16 {
                    _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(k * PANEL * width + AHEAD + 64).cast());
                }
            }
            for (row, sum) in sums.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*tile.a.add(k * R + row));
                sum[0] = _mm512_fmadd_ps(value, columns[0], sum[0]);
                sum[1] = _mm512_fmadd_ps(value, columns[1], sum[1]);
            }
        }
        for (row, sum) in sums.iter().enumerate() {
            let to = tile.out.add(row * tile.out_stride);
            _mm512_storeu_ps(to, sum[0]);
            _mm512_storeu_ps(to.add(16), sum[1]);
        }
    }
}

/// Bytes that one-row products fetch ahead.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 2048;

/// # Safety
/// See [`Tile::compute`]; the machine has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "the blocks take pointers")]
unsafe fn avx2<const R: usize, const BF16: bool>(tile: &Tile) {
    for half in 0..2 {
        let mut row = 0;
        // 6 × 2 sums of 8 and their operands fill the 16 registers.
        while row < R {
            // SAFETY: the block's rows and columns are within the tile.
            unsafe {
                match R - row {
                    1 => avx2_block::<1, R, BF16>(tile, row, half * 16),
                    2 => avx2_block::<2, R, BF16>(tile, row, half * 16),
                    3 => avx2_block::<3, R, BF16>(tile, row, half * 16),
                    4 => avx2_block::<4, R, BF16>(tile, row, half * 16),
                    5 => avx2_block::<5, R, BF16>(tile, row, half * 16),
                    _ => avx2_block::<6, R, BF16>(tile, row, half * 16),
                }
            }
            row += 6;
        }
    }
}

/// `B` rows from `first_row` of a tile of `R`, 16 columns from `column`.
///
/// # Safety
/// See [`Tile::compute`]; the machine has AVX2 and FMA, and the block is within the tile.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
unsafe fn avx2_block<const B: usize, const R: usize, const BF16: bool>(
    tile: &Tile,
    first_row: usize,
    column: usize,
) {
    use std::arch::x86_64::{
        __m128i, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
    };
    // SAFETY: rows, depth and panel are within what the caller vouches for.
    unsafe {
        let weights = |at: usize| match tile.b {
            Panel::F32(b) => _mm256_loadu_ps(b.add(at)),
            Panel::Bf16(b) => {
                let halves = _mm_loadu_si128(b.add(at).cast::<__m128i>());
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
            }
        };
        let mut sums = [[_mm256_setzero_ps(); 2]; B];
        for (row, sum) in sums.iter_mut().enumerate() {
            let from = tile.init.add((first_row + row) * tile.init_stride + column);
            *sum = [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))];
        }
        for k in 0..tile.depth {
            let columns = [weights(k * PANEL + column), weights(k * PANEL + column + 8)];
            for (row, sum) in sums.iter_mut().enumerate() {
                let value = _mm256_set1_ps(*tile.a.add(k * R + first_row + row));
                sum[0] = _mm256_fmadd_ps(value, columns[0], sum[0]);
                sum[1] = _mm256_fmadd_ps(value, columns[1], sum[1]);
            }
        }
        for (row, sum) in sums.iter().enumerate() {
            let to = tile.out.add((first_row + row) * tile.out_stride + column);
            _mm256_storeu_ps(to, sum[0]);
            _mm256_storeu_ps(to.add(8), sum[1]);
        }
    }
}

/// # Safety
/// See [`Tile::compute`].
#[expect(unsafe_code, reason = "tiles are addressed by pointers")]
unsafe fn portable<const R: usize, const BF16: bool>(tile: &Tile) {
    for row in 0..R {
        let mut sums = [0.0_f32; PANEL];
        // SAFETY: rows, depth and panel are within what the caller vouches for.
        unsafe {
            let init = tile.init.add(row * tile.init_stride);
            init.copy_to_nonoverlapping(sums.as_mut_ptr(), PANEL);
            for k in 0..tile.depth {
                let value = *tile.a.add(k * R + row);
                for (column, sum) in sums.iter_mut().enumerate() {
                    let weight = match tile.b {
                        Panel::F32(b) => *b.add(k * PANEL + column),
                        Panel::Bf16(b) => f32::from_bits(u32::from(*b.add(k * PANEL + column)) << 16),
                    };
                    *sum += value * weight;
                }
            }
            let out = tile.out.add(row * tile.out_stride);
            out.copy_from_nonoverlapping(sums.as_ptr(), PANEL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTH: usize = 37;

    /// What a code computes for `rows` rows that start from ones.
    #[expect(unsafe_code, reason = "tiles are addressed by pointers")]
    fn compute(codes: &Codes, rows: usize, bf16: bool) -> Vec<f32> {
        let value = |i: usize| ((i * 7919 % 257) as f32 - 128.0) / 64.0;
        let a: Vec<f32> = (0..DEPTH * rows).map(value).collect();
        let b: Vec<f32> = (0..DEPTH * PANEL).map(|i| value(i * 3 + 1)).collect();
        let halves: Vec<u16> = b.iter().map(|value| (value.to_bits() >> 16) as u16).collect();
        let ones = [1.0_f32; PANEL];
        let mut out = vec![f32::NAN; rows * PANEL];
        let tile = Tile {
            depth: DEPTH,
            rows,
            a: a.as_ptr(),
            b: if bf16 { Panel::Bf16(halves.as_ptr()) } else { Panel::F32(b.as_ptr()) },
            init: ones.as_ptr(),
            init_stride: 0,
            out: out.as_mut_ptr(),
            out_stride: PANEL,
        };
        let code = if bf16 { codes.bf16[rows - 1] } else { codes.f32[rows - 1] };
        // SAFETY: the callers ask for code that this machine has; all sizes are as the fields say.
        unsafe { code(&tile) };
        out
    }

    #[test]
    fn all_codes_agree() {
        let mut vector: Vec<Codes> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                vector.push(codes!(avx2));
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                vector.push(codes!(avx512));
            }
        }
        for (rows, bf16) in (1..=ROWS).flat_map(|rows| [(rows, false), (rows, true)]) {
            let slow = compute(&codes!(portable), rows, bf16);
            let fast: Vec<_> = vector.iter().map(|codes| compute(codes, rows, bf16)).collect();
            assert!(fast.windows(2).all(|pair| pair[0] == pair[1]), "{rows} rows, bf16 {bf16}");
            for (a, b) in fast.iter().flatten().zip(slow.iter().cycle()) {
                assert!((a - b).abs() < 1e-3, "{rows} rows, bf16 {bf16}: {a} and {b}");
            }
        }
    }
}
