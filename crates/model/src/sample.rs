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
