//! Pillow's bicubic resampling, bit for bit: Catmull-Rom widened when it shrinks (antialiasing), in a horizontal and a
//! vertical pass, each rounded to 8 bit, with coefficients in fixed point. The horizontal pass comes first, except where
//! the height loses far more than the width; that is Pillow 13's order, up to 12 horizontal always came first.
//! Source: Pillow, `src/libImaging/Resample.c` (`precompute_coeffs`, `ImagingResampleHorizontal_8bpc`, `…Vertical_8bpc`).

/// Fraction bits of a coefficient.
const BITS: u32 = 22;
/// Half of one, for rounding.
const HALF: i32 = 1 << (BITS - 1);
/// Reach of the filter, in source pixels, when it does not shrink.
const SUPPORT: f64 = 2.0;
/// Rows that the horizontal pass takes at a time: their values lie side by side, so that the inner loop is one vector's.
const ROWS: usize = 8;
/// Values of one column of such rows.
const LANES: usize = ROWS * 3;

/// What one target pixel takes: consecutive source pixels from `first` on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Scales 8 bit RGB of `from` (width, height) to `to`. Sides must not be 0 and the buffer must fit.
pub(crate) fn bicubic(source: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    if vertical_first(from, to) {
        let low = vertical(source, from.0, from.1, to.1);
        return if from.0 == to.0 { low } else { horizontal(&low, (from.0, to.1), to.0) };
    }
    let narrow = if from.0 == to.0 { source.to_vec() } else { horizontal(source, from, to.0) };
    if from.1 == to.1 { narrow } else { vertical(&narrow, to.0, from.1, to.1) }
}

/// Rows are lost, and more than twice as many as columns. The order decides how the 8 bit in between are rounded.
fn vertical_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let lost = |from: usize, to: usize| from as i64 - to as i64;
    from.1 > to.1 && lost(from.1, to.1) > 2 * lost(from.0, to.0)
}

fn horizontal(source: &[u8], (width, height): (usize, usize), to: usize) -> Vec<u8> {
    let taps = taps(width, to);
    let mut out = vec![0; to * height * 3];
    let mut columns = vec![[0_i32; LANES]; width];
    for top in (0..height).step_by(ROWS) {
        let rows = ROWS.min(height - top);
        for row in 0..rows {
            let line = &source[(top + row) * width * 3..][..width * 3];
            for (column, pixel) in columns.iter_mut().zip(line.as_chunks::<3>().0) {
                for (lane, &value) in column[row * 3..row * 3 + 3].iter_mut().zip(pixel) {
                    *lane = i32::from(value);
                }
            }
        }
        for (x, taps) in taps.iter().enumerate() {
            let mut sums = [HALF; LANES];
            for (weight, column) in taps.weights.iter().zip(&columns[taps.first..]) {
                for (sum, value) in sums.iter_mut().zip(column) {
                    *sum += weight * value;
                }
            }
            for row in 0..rows {
                let at = ((top + row) * to + x) * 3;
                for (value, sum) in out[at..at + 3].iter_mut().zip(&sums[row * 3..]) {
                    *value = clip(*sum);
                }
            }
        }
    }
    out
}

fn vertical(source: &[u8], width: usize, height: usize, to: usize) -> Vec<u8> {
    let line = width * 3;
    let mut out = Vec::with_capacity(line * to);
    let mut sums = vec![0; line];
    for taps in taps(height, to) {
        sums.fill(HALF);
        for (weight, row) in taps.weights.iter().zip(source[taps.first * line..].chunks_exact(line)) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(value);
            }
        }
        out.extend(sums.iter().map(|&sum| clip(sum)));
    }
    out
}

fn clip(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// The weights of each target pixel along one axis; they sum up to one.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    // Growing takes the filter as it is; shrinking widens it over all pixels that fall together.
    let stretch = scale.max(1.0);
    let reach = SUPPORT * stretch;
    let taps = (0..to).map(|pixel| {
        let centre = (pixel as f64 + 0.5) * scale;
        // Casts cut towards zero, as C does; below zero it is clamped.
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(from);
        let weights: Vec<f64> =
            (first..end).map(|x| catmull_rom((x as f64 - centre + 0.5) * (1.0 / stretch))).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = weights.into_iter().map(|weight| {
            let scaled = weight / sum * f64::from(1 << BITS);
            // Away from zero by a half, then cut.
            (scaled + 0.5_f64.copysign(scaled)) as i32
        });
        Taps { first, weights: fixed.collect() }
    });
    taps.collect()
}

/// The cubic through its neighbours, a = -0.5.
fn catmull_rom(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_areas_stay_even() {
        for (from, to) in [((10, 7), (28, 28)), ((100, 61), (28, 56)), ((3, 3), (3, 9)), ((9, 3), (1, 3))] {
            let source = vec![137; from.0 * from.1 * 3];
            assert!(bicubic(&source, from, to).iter().all(|&value| value == 137), "{from:?} {to:?}");
        }
    }

    #[test]
    fn weights_sum_up_to_one() {
        for (from, to) in [(200, 168), (61, 56), (5, 100), (1920, 28)] {
            for taps in taps(from, to) {
                let sum: i32 = taps.weights.iter().sum();
                assert!((sum - (1 << BITS)).unsigned_abs() as usize <= taps.weights.len());
                assert!(taps.first + taps.weights.len() <= from);
            }
        }
    }
}
