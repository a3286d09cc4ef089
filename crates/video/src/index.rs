//! Keyframes: time to byte offset. A whole table where the container has one, what bisecting found elsewhere.

use serde::{Deserialize, Serialize};

/// A keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyframe {
    /// Time on the container's clock, in ticks of the stream. The presentation time where the container tells it,
    /// else the decoding time.
    pub ticks: i64,
    /// First byte to read.
    pub offset: u64,
    /// Bytes of the keyframe itself, 0 where the container does not tell.
    pub size: u32,
    /// The next keyframe in this list is the next one in the video: nothing is unknown in between.
    pub next_known: bool,
}

/// Keyframes in rising order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyframeIndex {
    /// The keyframes.
    pub keyframes: Vec<Keyframe>,
}
