//! SiLU with its gate, and GELU.

use candle_core::{D, Result, Tensor, bail};

use super::buffer::filled;
use super::norm::in_tasks;
use super::tensor::{from_f32, is_ours, with_f32};
use super::{Threads, fallback, math};

/// `silu(gate) · up` of `[.., gate | up]`: `[.., 2·inner]` becomes `[.., inner]`.
///
/// # Errors
/// Where the last dimension is odd.
pub fn silu_mul(threads: &Threads, gate_up: &Tensor) -> Result<Tensor> {
    let width = gate_up.dim(D::Minus1)?;
    if width == 0 || !width.is_multiple_of(2) {
        bail!("gate and up do not share {width} values equally");
    }
    if !is_ours(gate_up) {
        return fallback::silu_mul(gate_up);
    }
    let mut shape = gate_up.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = width / 2;
    }
    let out = with_f32(gate_up, |gate_up| Ok(silu_mul_rows(threads, gate_up, width / 2)))?;
    from_f32(out, &shape)
}

#[expect(unsafe_code, reason = "threads write parts of one result")]
fn silu_mul_rows(threads: &Threads, gate_up: &[f32], inner: usize) -> Vec<f32> {
    // SAFETY: the tasks write all rows, each its own.
    unsafe {
        filled(gate_up.len() / 2, |out| {
            in_tasks(threads, gate_up.len() / 2, inner, &|from, count| {
                let rows = gate_up[from * 2..(from + count) * 2].chunks_exact(2 * inner);
                for (gate_up, out) in rows.zip(out.part(from, count).chunks_exact_mut(inner)) {
                    let (gate, up) = gate_up.split_at(inner);
                    math::silu_mul(gate, up, out);
                }
            });
        })
    }
}

/// GELU with the error function.
///
/// # Errors
/// Where a device fails.
pub fn gelu(threads: &Threads, x: &Tensor) -> Result<Tensor> {
    if !is_ours(x) {
        return x.gelu_erf();
    }
    let out = with_f32(x, |x| Ok(gelu_values(threads, x)))?;
    from_f32(out, x.dims())
}

#[expect(unsafe_code, reason = "threads write parts of one result")]
fn gelu_values(threads: &Threads, x: &[f32]) -> Vec<f32> {
    // SAFETY: the tasks write all values, each its own part.
    unsafe {
        filled(x.len(), |out| {
            in_tasks(threads, x.len(), 1, &|from, count| {
                math::gelu(&x[from..from + count], out.part(from, count));
            });
        })
    }
}
