//! Tensors as slices.

use candle_core::{CpuStorage, DType, Result, Storage, Tensor, bail};

use super::product::Values;

/// Whether the code of this module computes on it.
pub(super) fn is_ours(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// Reads an f32 tensor on the CPU, in row-major order.
pub(super) fn with_f32<T>(x: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    with_values(x, |values| match values {
        Values::F32(values) => read(values),
        Values::Bf16(_) => bail!("expected an f32 tensor, got bf16"),
    })
}

/// Reads an f32 or bf16 tensor on the CPU, in row-major order.
pub(super) fn with_values<T>(x: &Tensor, read: impl FnOnce(Values<'_>) -> Result<T>) -> Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let range = layout.start_offset()..layout.start_offset() + x.elem_count();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => read(Values::F32(&values[range])),
        Storage::Cpu(CpuStorage::BF16(values)) => {
            let bits: Vec<u16> = values[range].iter().map(|value| value.to_bits()).collect();
            read(Values::Bf16(&bits))
        }
        _ => bail!("expected an f32 or bf16 tensor on the CPU, got {:?} on {:?}", x.dtype(), x.device()),
    }
}

/// A tensor of these values.
pub(super) fn from_f32(values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &candle_core::Device::Cpu)
}
