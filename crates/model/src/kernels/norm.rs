//! RMS norm, alone and after a residual addition.

use candle_core::{Result, Tensor, bail};

use super::buffer::{Target, filled};
use super::tensor::{from_f32, is_ours, with_f32};
use super::{Threads, fallback, math};

/// Values in a task.
const TASK: usize = 1 << 15;

/// `x / sqrt(mean(x²) + eps) · weight` over the last dimension.
///
/// # Errors
/// Where shapes do not fit each other.
pub fn rms_norm(threads: &Threads, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    check(x, weight)?;
    if !is_ours(x) || !is_ours(weight) {
        return fallback::rms_norm(x, weight, eps);
    }
    let width = weight.elem_count();
    let out =
        with_f32(x, |x| with_f32(weight, |weight| Ok(norm_rows(threads, x, weight, width, eps as f32))))?;
    from_f32(out, x.dims())
}

/// The sum `x + residual`, and its norm.
///
/// # Errors
/// Where shapes do not fit each other.
pub fn add_rms_norm(
    threads: &Threads,
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    eps: f64,
) -> Result<(Tensor, Tensor)> {
    let sum = add(threads, x, residual)?;
    let normed = rms_norm(threads, &sum, weight, eps)?;
    Ok((sum, normed))
}

fn check(x: &Tensor, weight: &Tensor) -> Result<()> {
    let width = weight.elem_count();
    if width == 0 || x.dims().last() != Some(&width) {
        bail!("a norm of {width} values was given rows of {:?}", x.dims());
    }
    Ok(())
}

/// `x + y` of equal shapes.
fn add(threads: &Threads, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if !is_ours(x) || !is_ours(y) || x.dims() != y.dims() {
        return x + y;
    }
    let sum = with_f32(x, |x| with_f32(y, |y| Ok(add_values(threads, x, y))))?;
    from_f32(sum, x.dims())
}

#[expect(unsafe_code, reason = "threads write parts of one result")]
fn add_values(threads: &Threads, x: &[f32], y: &[f32]) -> Vec<f32> {
    // SAFETY: the tasks write all values, each its own part.
    unsafe {
        filled(x.len(), |out| {
            in_tasks(threads, x.len(), 1, &|from, count| {
                math::add(&x[from..from + count], &y[from..from + count], out.part(from, count));
            });
        })
    }
}

#[expect(unsafe_code, reason = "threads write parts of one result")]
fn norm_rows(threads: &Threads, x: &[f32], weight: &[f32], width: usize, eps: f32) -> Vec<f32> {
    let fill = |out: Target<'_>| {
        in_tasks(threads, x.len(), width, &|from, count| {
            // SAFETY: tasks have parts of their own.
            let out = unsafe { out.part(from, count) };
            for (x, out) in x[from..from + count].chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                math::rms_norm(x, weight, eps, out);
            }
        });
    };
    // SAFETY: the tasks write all rows.
    unsafe { filled(x.len(), fill) }
}

/// Calls `work(from, count)` on parts of `0..len` that are whole rows of `width` values.
pub(super) fn in_tasks(threads: &Threads, len: usize, width: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    let task = (TASK / width).max(1) * width;
    threads.run(len.div_ceil(task), &|index| {
        let from = index * task;
        work(from, task.min(len - from));
    });
}
