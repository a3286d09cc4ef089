//! Random numbers that are the same on every machine: ChaCha with a seed mixed from several numbers, and the few
//! distributions that a plan needs, written with plain arithmetic.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A seeded source of numbers.
pub(crate) struct Source(ChaCha8Rng);

impl Source {
    /// A source of its own for each combination of `parts`.
    pub(crate) fn new(parts: &[u64]) -> Self {
        let seed = parts.iter().fold(0x5eed_0fde_4040_1234, |state, part| mix(state ^ mix(*part)));
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number in `[low, high)`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        // 53 bits fill a double's mantissa.
        let unit = (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        low + unit * (high - low)
    }

    /// An index below `count`, which is at least 1.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        // The bias of the remainder is below 2^-50 for the small counts used here.
        (self.0.next_u64() % count.max(1) as u64) as usize
    }

    /// Puts `items` into random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// Eight random bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 8] {
        self.0.next_u64().to_le_bytes()
    }
}

/// Steele, Lea and Flood's splitmix64 finaliser: every input bit reaches every output bit.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
