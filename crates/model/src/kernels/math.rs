//! Element functions and row sums over slices, written so that the compiler vectorises them.

use super::dispatch::vectorised;

/// Lanes of a sum: always as many, whatever the machine's vectors, so that the bits are the same.
const LANES: usize = 32;

/// e^x within 2 units of the last place; 0 below -87.3 (minus infinity too), and 1 exactly at 0.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = clamped - whole * LN2_HIGH - whole * LN2_LOW;
    // Taylor with the last terms fitted (Cephes expf).
    let tail = 1.987_569_1e-4 * rest + 1.398_199_9e-3;
    let tail = tail * rest + 8.333_452e-3;
    let tail = tail * rest + 4.166_579_6e-2;
    let tail = tail * rest + 1.666_666_6e-1;
    let tail = tail * rest + 0.5;
    let fraction = tail * (rest * rest) + rest + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { fraction * power }
}

/// Within 2e-7 (Abramowitz and Stegun 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let series =
        t * (0.254_829_6 + t * (-0.284_496_72 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    (1.0 - series * exp(-size * size)).copysign(x)
}

/// Adds up the lanes pairwise.
#[inline(always)]
fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value * value;
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += value * value;
    }
    sum_lanes(lanes)
}

vectorised! {
    /// `out = silu(gate) · up`.
    pub(super) fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

vectorised! {
    /// `out = x/2 · (1 + erf(x/√2))`.
    pub(super) fn gelu(x: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

vectorised! {
    /// `out = x / sqrt(mean(x²) + eps) · weight`.
    pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

vectorised! {
    /// `out = x + y`.
    pub(super) fn add(x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = x + y;
        }
    }
}

vectorised! {
    /// Turns a head's values by their angles: `x` and `out` are `[dim]`, `cos` and `sin` `[dim/2]`.
    pub(super) fn rotate(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) {
        let half = cos.len();
        let (low, high) = x.split_at(half);
        let (out_low, out_high) = out.split_at_mut(half);
        for i in 0..half {
            let (cos, sin) = (cos[i] * scale, sin[i] * scale);
            out_low[i] = low[i] * cos - high[i] * sin;
            out_high[i] = high[i] * cos + low[i] * sin;
        }
    }
}

vectorised! {
    /// The larger of `max` and the largest score.
    pub(super) fn max_with(scores: &[f32], max: f32) -> f32 {
        let mut lanes = [max; LANES];
        let (whole, rest) = scores.as_chunks::<LANES>();
        for chunk in whole {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane = if *value > *lane { *value } else { *lane };
        }
        lanes.iter().fold(max, |max, lane| max.max(*lane))
    }
}

vectorised! {
    /// Replaces each score by `exp(score - max)`, and gives their sum.
    pub(super) fn exp_and_sum(scores: &mut [f32], max: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = scores.as_chunks_mut::<LANES>();
        for chunk in whole {
            for (lane, score) in lanes.iter_mut().zip(chunk) {
                *score = exp(*score - max);
                *lane += *score;
            }
        }
        for (lane, score) in lanes.iter_mut().zip(rest) {
            *score = exp(*score - max);
            *lane += *score;
        }
        sum_lanes(lanes)
    }
}

vectorised! {
    /// The sum of `exp(x - max)`.
    pub(super) fn sum_of_exps(x: &[f32], max: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for chunk in whole {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += exp(value - max);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += exp(value - max);
        }
        sum_lanes(lanes)
    }
}

vectorised! {
    /// Whether every value is a number; infinities are.
    pub(super) fn are_numbers(x: &[f32]) -> bool {
        x.iter().fold(true, |numbers, value| numbers & !value.is_nan())
    }
}

vectorised! {
    /// `x *= factor`.
    pub(super) fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

/// `exp(earlier - later)` of two maxima: what earlier sums shrink by.
pub(super) fn shrink(earlier: f32, later: f32) -> f32 {
    exp(earlier - later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_a_few_units_of_the_last_place() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        for step in -8000..8000 {
            let x = step as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= exact * 3e-7, "exp({x}) = {} not {exact}", exp(x));
        }
    }

    #[test]
    fn gelu_and_silu_are_near_their_definitions() {
        let x: Vec<f32> = (-600..600).map(|step| step as f32 * 0.013).collect();
        let (mut gelus, mut silus) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        gelu(&x, &mut gelus);
        silu_mul(&x, &x, &mut silus);
        let tensor = candle_core::Tensor::new(x.as_slice(), &candle_core::Device::Cpu).unwrap();
        let exact: Vec<f32> = tensor.gelu_erf().unwrap().to_vec1().unwrap();
        for ((x, gelu), (silu, exact)) in x.iter().zip(&gelus).zip(silus.iter().zip(&exact)) {
            assert!((gelu - exact).abs() < 2e-6, "gelu({x}) = {gelu} not {exact}");
            let wide = f64::from(*x);
            assert!(
                (f64::from(*silu) - wide * wide / (1.0 + (-wide).exp())).abs() < 1e-5,
                "silu({x})·{x} = {silu}"
            );
        }
    }
}
