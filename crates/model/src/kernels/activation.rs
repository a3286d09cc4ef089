//! SiLU with its gate, and GELU.

use candle_core::{Result, Tensor};

use super::{Threads, fallback};

/// `silu(gate) · up` of `[.., gate | up]`: `[.., 2·inner]` becomes `[.., inner]`.
///
/// # Errors
/// Where a device fails.
pub fn silu_mul(_threads: &Threads, gate_up: &Tensor) -> Result<Tensor> {
    fallback::silu_mul(gate_up)
}

/// GELU with the error function.
///
/// # Errors
/// Where a device fails.
pub fn gelu(_threads: &Threads, x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}
