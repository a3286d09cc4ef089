//! A span of a video's time line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds from the first displayed frame; `start_s <= end_s`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimeSpan {
    /// First second.
    pub start_s: f64,
    /// Last second (frames before it belong to the span).
    pub end_s: f64,
}

impl TimeSpan {
    /// From `start_s` to `end_s`; `None` where one is not finite or they are reversed.
    pub fn new(start_s: f64, end_s: f64) -> Option<Self> {
        (start_s.is_finite() && end_s.is_finite() && start_s <= end_s).then_some(Self { start_s, end_s })
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        self.end_s - self.start_s
    }

    /// The part of it inside `[0, duration_s]`; `None` where nothing of it lies there.
    pub fn clamped(&self, duration_s: f64) -> Option<Self> {
        let start_s = self.start_s.max(0.0);
        let end_s = self.end_s.min(duration_s);
        (start_s < end_s).then_some(Self { start_s, end_s })
    }
}
