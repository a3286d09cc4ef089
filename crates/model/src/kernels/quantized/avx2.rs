//! Tiles by AVX2, FMA and F16C: bytes are widened to 16 bits, so that no product overflows. Eight columns at a time.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_cvtepi8_epi16, _mm_cvtsi32_si128, _mm_loadl_epi64, _mm_loadu_si128,
    _mm256_add_epi32, _mm256_and_si256, _mm256_broadcastq_epi64, _mm256_castsi256_si128, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi16, _mm256_cvtepu8_epi32, _mm256_cvtph_ps, _mm256_extracti128_si256, _mm256_fmadd_ps,
    _mm256_fnmadd_ps, _mm256_hadd_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_mul_ps, _mm256_permute4x64_epi64, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_sub_epi32,
};

use super::super::tile::PANEL;
use super::tile::{Activations, Q4_BYTES, Q4_HEAD_BYTES, Q4_PART_BYTES, Q8_BYTES, Tile};

/// Columns worked on together.
const COLUMNS: usize = 8;

/// # Safety
/// See [`Tile::compute`]; the machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
pub(super) unsafe fn q8<const R: usize>(tile: &Tile) {
    for column in (0..PANEL).step_by(COLUMNS) {
        // SAFETY: rows, blocks and panel are within what the caller vouches for.
        unsafe {
            let mut sums = start::<R>(tile, column);
            let (mut a, mut b) = (Activations::<R>(tile.a), tile.b);
            for _ in 0..tile.blocks {
                let scales = halves(b.add(2 * column));
                let mut dots = [[_mm256_setzero_si256(); 2]; R];
                for word in 0..8 {
                    let from = b.add(2 * PANEL + word * 4 * PANEL + 4 * column);
                    add_products(&mut dots, _mm256_loadu_si256(from.cast::<__m256i>()), a, word);
                }
                for (row, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                    let dot = _mm256_sub_epi32(in_order(dots), _mm256_set1_epi32(128 * a.sum(row)));
                    let term = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), scales);
                    *sums = _mm256_fmadd_ps(term, _mm256_set1_ps(a.scale(row)), *sums);
                }
                (a, b) = (a.next(), b.wrapping_add(Q8_BYTES));
            }
            finish(tile, column, &sums);
        }
    }
}

/// # Safety
/// See [`Tile::compute`]; the machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
pub(super) unsafe fn q4<const R: usize>(tile: &Tile) {
    for column in (0..PANEL).step_by(COLUMNS) {
        // SAFETY: rows, blocks and panel are within what the caller vouches for.
        unsafe {
            let mut sums = start::<R>(tile, column);
            let mut a = Activations::<R>(tile.a);
            for block in 0..tile.blocks {
                let head = tile.b.add(block / 8 * Q4_BYTES);
                let b = head.add(Q4_HEAD_BYTES + block % 8 * Q4_PART_BYTES);
                let scales = _mm256_mul_ps(halves(head.add(2 * column)), small(b.add(column)));
                let minima =
                    _mm256_mul_ps(halves(head.add(2 * (PANEL + column))), small(b.add(PANEL + column)));
                let mut dots = [[_mm256_setzero_si256(); 2]; R];
                let low = _mm256_set1_epi8(15);
                for word in 0..4 {
                    let from = b.add(2 * PANEL + word * 4 * PANEL + 4 * column);
                    let pairs = _mm256_loadu_si256(from.cast::<__m256i>());
                    add_products(&mut dots, _mm256_and_si256(pairs, low), a, word);
                    let second = _mm256_and_si256(_mm256_srli_epi16::<4>(pairs), low);
                    add_products(&mut dots, second, a, 4 + word);
                }
                for (row, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                    let dot = _mm256_mul_ps(_mm256_cvtepi32_ps(in_order(dots)), scales);
                    let term = _mm256_fnmadd_ps(minima, _mm256_set1_ps(a.sum(row) as f32), dot);
                    *sums = _mm256_fmadd_ps(term, _mm256_set1_ps(a.scale(row)), *sums);
                }
                a = a.next();
            }
            finish(tile, column, &sums);
        }
    }
}

/// Adds the products of eight columns' fours of weights with each row's word: pairs of them, the first four columns' and
/// the others'.
///
/// # Safety
/// The activations' block is there, `word < 8`; the machine has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "activations are addressed by pointers")]
unsafe fn add_products<const R: usize>(
    dots: &mut [[__m256i; 2]; R],
    weights: __m256i,
    a: Activations<R>,
    word: usize,
) {
    let wide = [
        _mm256_cvtepu8_epi16(_mm256_castsi256_si128(weights)),
        _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(weights)),
    ];
    for (row, dots) in dots.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let four = unsafe { a.word(word, row) };
        let numbers = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
        dots[0] = _mm256_add_epi32(dots[0], _mm256_madd_epi16(wide[0], numbers));
        dots[1] = _mm256_add_epi32(dots[1], _mm256_madd_epi16(wide[1], numbers));
    }
}

/// Adds up the pairs: a number per column, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn in_order([first, second]: [__m256i; 2]) -> __m256i {
    // Columns 0 1 4 5 | 2 3 6 7 become 0 1 2 3 | 4 5 6 7.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(first, second))
}

/// What the sums of these columns start from.
///
/// # Safety
/// See [`Tile::compute`].
#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
unsafe fn start<const R: usize>(tile: &Tile, column: usize) -> [__m256; R] {
    let mut sums = [_mm256_setzero_ps(); R];
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *sums = unsafe { _mm256_loadu_ps(tile.sums.init.add(row * tile.sums.init_stride + column)) };
    }
    sums
}

/// Writes the sums of these columns.
///
/// # Safety
/// See [`Tile::compute`].
#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
unsafe fn finish<const R: usize>(tile: &Tile, column: usize, sums: &[__m256; R]) {
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(tile.sums.out.add(row * tile.sums.out_stride + column), *sums) };
    }
}

/// Eight numbers in f16.
///
/// # Safety
/// They are there; the machine has F16C.
#[inline]
#[target_feature(enable = "avx2,f16c")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
unsafe fn halves(from: *const u8) -> __m256 {
    // SAFETY: the caller's promise.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.cast::<__m128i>()) })
}

/// Eight numbers of 8 bits without sign.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
unsafe fn small(from: *const u8) -> __m256 {
    // SAFETY: the caller's promise.
    let bytes = unsafe { _mm_loadl_epi64(from.cast::<__m128i>()) };
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
}
