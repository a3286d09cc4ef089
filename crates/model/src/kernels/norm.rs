//! RMS norm, alone and after a residual addition.

use candle_core::{Result, Tensor};

use super::{Threads, fallback};

/// `x / sqrt(mean(x²) + eps) · weight` over the last dimension.
///
/// # Errors
/// Where shapes do not fit each other.
pub fn rms_norm(_threads: &Threads, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    fallback::rms_norm(x, weight, eps)
}

/// The sum `x + residual`, and its norm.
///
/// # Errors
/// Where shapes do not fit each other.
pub fn add_rms_norm(
    _threads: &Threads,
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    eps: f64,
) -> Result<(Tensor, Tensor)> {
    let sum = (x + residual)?;
    let normed = fallback::rms_norm(&sum, weight, eps)?;
    Ok((sum, normed))
}
