//! From logits to a token: greedy, or temperature and nucleus with a seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spectemp_engine::Sampling;

/// Index of the largest logit, the first of equals; none where one is not a number.
pub(crate) fn argmax(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (id, &logit) in (0..).zip(logits) {
        if logit.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, largest)| logit > largest) {
            best = Some((id, logit));
        }
    }
    best.filter(|(_, logit)| logit.is_finite()).map(|(id, _)| id)
}

/// Log of the sum of exponentials: `logits[i] - log_sum` is the log-probability of `i`.
pub(crate) fn log_sum(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - largest).exp())).sum();
    f64::from(largest) + sum.ln()
}

/// Draws the tokens of one generation.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    generator: ChaCha8Rng,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling) -> Self {
        Self { sampling, generator: ChaCha8Rng::seed_from_u64(sampling.seed) }
    }

    /// None where the logits are not finite.
    pub(crate) fn draw(&mut self, logits: &[f32]) -> Option<u32> {
        let greedy = argmax(logits)?;
        if self.sampling.temperature <= 0.0 {
            return Some(greedy);
        }
        let largest = logits[greedy as usize];
        let weight = |logit: f32| (f64::from(logit - largest) / self.sampling.temperature).exp();
        let mut candidates: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|&logit| weight(logit))).collect();
        candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let kept = nucleus(&candidates, self.sampling.top_p);
        let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
        let mut left = self.generator.random::<f64>() * total;
        for (id, weight) in kept {
            left -= weight;
            if left < 0.0 {
                return Some(*id);
            }
        }
        kept.last().map(|(id, _)| *id)
    }
}

/// The fewest of the most probable candidates whose mass reaches `top_p`.
fn nucleus(candidates: &[(u32, f64)], top_p: f64) -> &[(u32, f64)] {
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    let mut mass = 0.0;
    let needed = candidates.iter().position(|(_, weight)| {
        mass += weight;
        mass >= top_p * total
    });
    &candidates[..needed.map_or(candidates.len(), |last| last + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f64, top_p: f64, seed: u64) -> Sampler {
        Sampler::new(Sampling { temperature, top_p, seed })
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest_and_refuses_what_is_no_number() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, f32::NEG_INFINITY]), Some(1));
        assert_eq!(argmax(&[1.0, f32::NAN]), None);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 2]), None);
        assert_eq!(argmax(&[]), None);
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        // Probabilities 0.5, 0.3, 0.2.
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()];
        let mut counts = [0_usize; 3];
        let mut drawn = sampler(1.0, 1.0, 7);
        for _ in 0..20_000 {
            counts[drawn.draw(&logits).unwrap() as usize] += 1;
        }
        for (count, wanted) in counts.iter().zip([0.5, 0.3, 0.2]) {
            assert!((*count as f64 / 20_000.0 - wanted).abs() < 0.015, "{counts:?}");
        }
        let series = |seed| {
            let mut sampler = sampler(0.8, 0.9, seed);
            (0..50).map(|_| sampler.draw(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(series(1), series(1));
        assert_ne!(series(1), series(2));
    }

    #[test]
    fn the_nucleus_is_the_fewest_that_reach_the_mass() {
        let candidates = [(4, 0.5), (1, 0.3), (9, 0.2)];
        assert_eq!(nucleus(&candidates, 0.5).len(), 1);
        assert_eq!(nucleus(&candidates, 0.51).len(), 2);
        assert_eq!(nucleus(&candidates, 1.0).len(), 3);
        let mut only = sampler(1.0, 0.4, 3);
        assert!((0..100).all(|_| only.draw(&[1.0, 0.0, -1.0]) == Some(0)));
    }

    #[test]
    fn log_sum_makes_probabilities() {
        let logits = [100.0_f32, 99.0, -50.0];
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - log_sum(&logits)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
    }
}
