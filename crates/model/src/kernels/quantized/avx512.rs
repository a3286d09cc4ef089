//! Tiles by AVX-512 with VNNI, which multiplies 64 pairs of bytes and adds fours of them up in one instruction.

use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_loadu_si256,
    _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi16,
    _mm512_storeu_ps,
};

use super::super::tile::PANEL;
use super::tile::{Activations, Q4_BYTES, Q4_HEAD_BYTES, Q4_PART_BYTES, Q8_BYTES, Tile};

/// Bytes that tiles of few rows fetch ahead: they run at the memory's pace.
const AHEAD: usize = 4096;
/// Most rows of such a tile.
const FEW: usize = 2;

/// # Safety
/// See [`Tile::compute`]; the machine has AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
pub(super) unsafe fn q8<const R: usize>(tile: &Tile) {
    // SAFETY: rows, blocks and panel are within what the caller vouches for.
    unsafe {
        let mut sums = start::<R>(tile);
        let (mut a, mut b) = (Activations::<R>(tile.a), tile.b);
        for _ in 0..tile.blocks {
            let scales = halves(b);
            let mut dots = [[_mm512_setzero_si512(); 2]; R];
            for (row, dots) in dots.iter_mut().enumerate() {
                *dots = [_mm512_set1_epi32(-128 * a.sum(row)); 2];
            }
            for word in 0..8 {
                let from = b.add(2 * PANEL + word * 4 * PANEL);
                let weights = [_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(64).cast())];
                ahead::<R>(from);
                ahead::<R>(from.wrapping_add(64));
                for (row, dots) in dots.iter_mut().enumerate() {
                    let numbers = _mm512_set1_epi32(a.word(word, row));
                    dots[0] = _mm512_dpbusd_epi32(dots[0], weights[0], numbers);
                    dots[1] = _mm512_dpbusd_epi32(dots[1], weights[1], numbers);
                }
            }
            for (row, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                let scale = _mm512_set1_ps(a.scale(row));
                for half in 0..2 {
                    let term = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[half]), scales[half]);
                    sums[half] = _mm512_fmadd_ps(term, scale, sums[half]);
                }
            }
            (a, b) = (a.next(), b.wrapping_add(Q8_BYTES));
        }
        finish(tile, &sums);
    }
}

/// # Safety
/// See [`Tile::compute`]; the machine has AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
pub(super) unsafe fn q4<const R: usize>(tile: &Tile) {
    // SAFETY: rows, blocks and panel are within what the caller vouches for.
    unsafe {
        let mut sums = start::<R>(tile);
        let mut a = Activations::<R>(tile.a);
        for whole in 0..tile.blocks / 8 {
            let head = tile.b.add(whole * Q4_BYTES);
            let (scales, minima) = (halves(head), halves(head.add(2 * PANEL)));
            for part in 0..8 {
                let b = head.add(Q4_HEAD_BYTES + part * Q4_PART_BYTES);
                let dots = q4_dots(a, b.add(2 * PANEL));
                for half in 0..2 {
                    let scale = _mm512_mul_ps(scales[half], small(b.add(16 * half)));
                    let minimum = _mm512_mul_ps(minima[half], small(b.add(PANEL + 16 * half)));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let dot = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[row][half]), scale);
                        let term = _mm512_fnmadd_ps(minimum, _mm512_set1_ps(a.sum(row) as f32), dot);
                        sums[half] = _mm512_fmadd_ps(term, _mm512_set1_ps(a.scale(row)), sums[half]);
                    }
                }
                a = a.next();
            }
        }
        finish(tile, &sums);
    }
}

/// Whole products of 32 terms of `q4_K`, whose weights begin at `b`.
///
/// # Safety
/// The activations' block and the weights are there; the machine has the instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
unsafe fn q4_dots<const R: usize>(a: Activations<R>, b: *const u8) -> [[__m512i; 2]; R] {
    let mut dots = [[_mm512_setzero_si512(); 2]; R];
    let low = _mm512_set1_epi8(15);
    for word in 0..4 {
        for half in 0..2 {
            // SAFETY: the caller's promise. A prefetch may name any address.
            unsafe {
                let from = b.add(word * 4 * PANEL + half * 64);
                ahead::<R>(from);
                let pairs = _mm512_loadu_si512(from.cast());
                let first = _mm512_and_si512(pairs, low);
                let second = _mm512_and_si512(_mm512_srli_epi16::<4>(pairs), low);
                for (row, dots) in dots.iter_mut().enumerate() {
                    let dot = _mm512_dpbusd_epi32(dots[half], first, _mm512_set1_epi32(a.word(word, row)));
                    let numbers = _mm512_set1_epi32(a.word(4 + word, row));
                    dots[half] = _mm512_dpbusd_epi32(dot, second, numbers);
                }
            }
        }
    }
    dots
}

/// What the sums start from.
///
/// # Safety
/// See [`Tile::compute`].
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
unsafe fn start<const R: usize>(tile: &Tile) -> [[__m512; 2]; R] {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let from = tile.sums.init.add(row * tile.sums.init_stride);
            *sums = [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))];
        }
    }
    sums
}

/// Writes the sums.
///
/// # Safety
/// See [`Tile::compute`].
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
unsafe fn finish<const R: usize>(tile: &Tile, sums: &[[__m512; 2]; R]) {
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let to = tile.sums.out.add(row * tile.sums.out_stride);
            _mm512_storeu_ps(to, sums[0]);
            _mm512_storeu_ps(to.add(16), sums[1]);
        }
    }
}

/// 32 numbers in f16.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
unsafe fn halves(from: *const u8) -> [__m512; 2] {
    // SAFETY: the caller's promise.
    let load = |at: usize| unsafe { _mm256_loadu_si256(from.add(at).cast::<__m256i>()) };
    [_mm512_cvtph_ps(load(0)), _mm512_cvtph_ps(load(32))]
}

/// 16 numbers of 8 bits without sign.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
unsafe fn small(from: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    let bytes = unsafe { _mm_loadu_si128(from.cast::<__m128i>()) };
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
}

/// Fetches what tiles of few rows read soon.
#[inline(always)]
#[expect(unsafe_code, reason = "a prefetch takes a pointer")]
fn ahead<const R: usize>(from: *const u8) {
    if R <= FEW {
        // SAFETY: a prefetch reads nothing, it may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD).cast()) }
    }
}
