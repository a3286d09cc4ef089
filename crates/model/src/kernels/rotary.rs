//! Rotary angles of the tokens of one call.

use candle_core::Tensor;

/// Cosine and sine of each token's angles, already composed from the axes (time, height, width).
///
/// Dimensions `i` and `i + head_dim/2` of a head turn by the same angle, as HF's `rotate_half` has it.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// `[tokens, head_dim/2]`, f32 on the CPU.
    pub cos: Tensor,
    /// `[tokens, head_dim/2]`, f32 on the CPU.
    pub sin: Tensor,
}
