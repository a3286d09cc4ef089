//! From logits to a token: greedy, or temperature and nucleus with a seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spectemp_engine::Sampling;

pub(crate) use crate::kernels::{argmax, log_sum};

/// Candidates that are looked at first: the nucleus is seldom larger.
const FIRST: usize = 64;

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
        let candidates = (0..).zip(logits.iter().map(|&logit| weight(logit))).collect();
        let kept = nucleus(candidates, self.sampling.top_p);
        let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
        let mut left = self.generator.random::<f64>() * total;
        for (id, weight) in &kept {
            left -= weight;
            if left < 0.0 {
                return Some(*id);
            }
        }
        // The weights' sum was rounded.
        Some(greedy)
    }
}

/// The fewest of the most probable candidates whose mass reaches `top_p`, the most probable first; all of them, as they
/// are, for 1.
fn nucleus(mut candidates: Vec<(u32, f64)>, top_p: f64) -> Vec<(u32, f64)> {
    if top_p >= 1.0 {
        return candidates;
    }
    let mass = |candidates: &[(u32, f64)]| candidates.iter().map(|(_, weight)| weight).sum::<f64>();
    let wanted = top_p * mass(&candidates);
    let falling = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    // A vocabulary is large and the nucleus small: only a beginning that holds it is put in order.
    let mut size = FIRST;
    while size < candidates.len() {
        candidates.select_nth_unstable_by(size, falling);
        if mass(&candidates[..size]) >= wanted {
            candidates.truncate(size);
            break;
        }
        size *= 8;
    }
    candidates.sort_unstable_by(falling);
    let mut reached = 0.0;
    let last = candidates.iter().position(|(_, weight)| {
        reached += weight;
        reached >= wanted
    });
    candidates.truncate(last.map_or(candidates.len(), |last| last + 1));
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f64, top_p: f64, seed: u64) -> Sampler {
        Sampler::new(Sampling { temperature, top_p, seed })
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
        let sizes = |top_p| nucleus(vec![(1, 0.3), (4, 0.5), (9, 0.2)], top_p).len();
        assert_eq!([0.0, 0.5, 0.51, 1.0].map(sizes), [1, 1, 2, 3]);
        let mut only = sampler(1.0, 0.4, 3);
        assert!((0..100).all(|_| only.draw(&[1.0, 0.0, -1.0]) == Some(0)));
    }

    #[test]
    fn of_many_candidates_the_same_ones_as_by_sorting_them_all() {
        let all: Vec<(u32, f64)> = (0..5000).map(|id| (id, f64::from((id * 7919) % 5003).powi(2))).collect();
        let total: f64 = all.iter().map(|(_, weight)| weight).sum();
        for top_p in [0.001, 0.05, 0.3, 0.9, 0.999] {
            let mut sorted = all.clone();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            let mut mass = 0.0;
            sorted.retain(|(_, weight)| {
                let short = mass < top_p * total;
                mass += weight;
                short
            });
            assert_eq!(nucleus(all.clone(), top_p), sorted, "{top_p}");
        }
    }
}
