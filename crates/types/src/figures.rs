//! What work cost: tokens, milliseconds, requests and bytes. All of them add up.

use std::ops::AddAssign;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tokens of one generation, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCounts {
    /// Text tokens of the prompt (specials included).
    pub text: u64,
    /// Visual tokens of the prompt.
    pub visual: u64,
    /// Tokens of the prompt (text or visual) whose KV was there already.
    pub reused: u64,
    /// Visual tokens that went through the vision tower; the embeddings of the others were there already, or were not
    /// needed. 0 where the backend does not tell.
    #[serde(default)]
    pub encoded: u64,
    /// Tokens generated, the end token included.
    pub generated: u64,
}

impl AddAssign for TokenCounts {
    fn add_assign(&mut self, other: Self) {
        self.text += other.text;
        self.visual += other.visual;
        self.reused += other.reused;
        self.encoded += other.encoded;
        self.generated += other.generated;
    }
}

/// Milliseconds per stage, by the clock: where several jobs share a model, their stages overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageTimes {
    /// Waiting for bytes of the object.
    pub fetch_ms: f64,
    /// Decoding and scaling frames.
    pub decode_ms: f64,
    /// Waiting for the model: for memory, or for another job's prompt that begins alike.
    #[serde(default)]
    pub wait_ms: f64,
    /// The vision tower.
    pub vision_ms: f64,
    /// Prefill of new prompt tokens.
    pub prefill_ms: f64,
    /// Token by token generation.
    pub generate_ms: f64,
}

impl StageTimes {
    /// All stages.
    pub fn sum_ms(&self) -> f64 {
        let Self { fetch_ms, decode_ms, wait_ms, vision_ms, prefill_ms, generate_ms } = self;
        fetch_ms + decode_ms + wait_ms + vision_ms + prefill_ms + generate_ms
    }
}

impl AddAssign for StageTimes {
    fn add_assign(&mut self, other: Self) {
        self.fetch_ms += other.fetch_ms;
        self.decode_ms += other.decode_ms;
        self.wait_ms += other.wait_ms;
        self.vision_ms += other.vision_ms;
        self.prefill_ms += other.prefill_ms;
        self.generate_ms += other.generate_ms;
    }
}

/// What was read from an object, and what was decoded of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IoFigures {
    /// Requests sent to the object store.
    pub requests: u64,
    /// Bytes that came back.
    pub bytes: u64,
    /// Frames decoded, those on the way to a wanted one included.
    pub decoded_frames: u64,
    /// True where the whole object had to be scanned (`--allow-scan`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full_scan: bool,
}

impl AddAssign for IoFigures {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.decoded_frames += other.decoded_frames;
        self.full_scan |= other.full_scan;
    }
}
