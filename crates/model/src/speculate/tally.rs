//! How guesses fared.

use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Sums over all generations of a model.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    calls: AtomicU64,
    guessed: AtomicU64,
    accepted: AtomicU64,
    missed: AtomicU64,
}

/// How guesses fared so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpeculationFigures {
    /// Calls of the model that ran guesses.
    pub calls: u64,
    /// Guesses in them.
    pub guessed: u64,
    /// Guesses that came true.
    pub accepted: u64,
    /// Calls in which the model decided something else where there was a guess.
    pub missed: u64,
}

impl SpeculationFigures {
    /// How often the model decided what the proposer guessed, where it had a guess; none before the first.
    pub fn agreement(&self) -> Option<f64> {
        let decided = self.accepted + self.missed;
        (decided > 0).then(|| self.accepted as f64 / decided as f64)
    }

    /// Guesses that came true per call with guesses; none before the first.
    pub fn accepted_per_call(&self) -> Option<f64> {
        (self.calls > 0).then(|| self.accepted as f64 / self.calls as f64)
    }
}

impl Sub for SpeculationFigures {
    type Output = Self;

    /// What came since the earlier figures.
    fn sub(self, earlier: Self) -> Self {
        Self {
            calls: self.calls - earlier.calls,
            guessed: self.guessed - earlier.guessed,
            accepted: self.accepted - earlier.accepted,
            missed: self.missed - earlier.missed,
        }
    }
}

impl Tally {
    /// Counts a call with guesses.
    pub(crate) fn count(&self, guessed: usize, accepted: usize, missed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.guessed.fetch_add(guessed as u64, Ordering::Relaxed);
        self.accepted.fetch_add(accepted as u64, Ordering::Relaxed);
        self.missed.fetch_add(u64::from(missed), Ordering::Relaxed);
    }

    pub(crate) fn figures(&self) -> SpeculationFigures {
        SpeculationFigures {
            calls: self.calls.load(Ordering::Relaxed),
            guessed: self.guessed.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
            missed: self.missed.load(Ordering::Relaxed),
        }
    }
}
