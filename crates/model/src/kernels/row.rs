//! One row of logits, as wide as the vocabulary: which is the largest, and what all of them sum up to. Every token that is
//! written needs both.

use super::math;

/// Values that are looked at together: they stay in the nearest cache, and a sum over them loses nothing that matters.
const CHUNK: usize = 4096;

/// Index of the largest logit, the first of equals; none where one is not a number, or none is finite.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    let (mut best, mut first) = (f32::NEG_INFINITY, 0);
    for (number, chunk) in logits.chunks(CHUNK).enumerate() {
        if !math::are_numbers(chunk) {
            return None;
        }
        let largest = math::max_with(chunk, f32::NEG_INFINITY);
        if largest > best {
            (best, first) = (largest, number * CHUNK);
        }
    }
    let place = logits[first..].iter().position(|&logit| logit == best)?;
    best.is_finite().then_some((first + place) as u32)
}

/// Log of the sum of exponentials: `logits[i] - log_sum` is the log-probability of `i`.
pub fn log_sum(logits: &[f32]) -> f64 {
    let largest = math::max_with(logits, f32::NEG_INFINITY);
    let sum: f64 = logits.chunks(CHUNK).map(|chunk| f64::from(math::sum_of_exps(chunk, largest))).sum();
    f64::from(largest) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_wherever_it_stands() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, f32::NEG_INFINITY]), Some(1));
        assert_eq!(argmax(&[1.0, f32::NAN]), None);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 2]), None);
        assert_eq!(argmax(&[1.0, f32::INFINITY]), None);
        assert_eq!(argmax(&[]), None);
        for at in [0, 31, CHUNK - 1, CHUNK, 3 * CHUNK + 17] {
            let mut logits: Vec<f32> = (0..4 * CHUNK).map(|id| (id as f32).sin()).collect();
            logits[at] = 1.5;
            logits[4 * CHUNK - 1] = 1.5;
            assert_eq!(argmax(&logits), Some(at as u32));
            logits[at] = f32::NAN;
            assert_eq!(argmax(&logits), None);
        }
    }

    #[test]
    fn log_sum_makes_probabilities() {
        let logits: Vec<f32> = (0..151_936).map(|id| ((id * 7919) % 1000) as f32 * 0.02 - 7.0).collect();
        let exact: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
        assert!((log_sum(&logits) - exact).abs() < 1e-6, "{} not {exact}", log_sum(&logits));
        let masked = [100.0_f32, 99.0, f32::NEG_INFINITY, -50.0];
        let sum: f64 = masked.iter().map(|&logit| (f64::from(logit) - log_sum(&masked)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
    }
}
