//! Products with a weight matrix: `x · Wᵀ + bias`.

use candle_core::{D, DType, Result, Tensor, bail};

use super::product::Packed;
use super::tensor::{from_f32, with_f32, with_values};
use super::{Threads, fallback};

/// One weight matrix of those that a [`Linear`] stacks.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// `[out, in]`.
    pub weight: &'a Tensor,
    /// `[out]`.
    pub bias: Option<&'a Tensor>,
}

/// A linear layer, or several that read the same input stacked into one.
///
/// On the CPU weights are f32, or bf16 where all parts are: then they are widened as they are read, and activations stay f32.
#[derive(Debug)]
pub struct Linear {
    threads: Threads,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    Packed(Packed),
    Tensors { weight: Tensor, bias: Option<Tensor> },
}

impl Linear {
    /// Packs the parts, whose rows are stacked in the order given. The tensors can be dropped afterwards.
    ///
    /// # Errors
    /// Where there is no part, or parts differ in their inputs.
    pub fn new(threads: &Threads, parts: &[Part<'_>]) -> Result<Self> {
        let Some(first) = parts.first() else { bail!("a linear layer of no parts") };
        let weights = if first.weight.device().is_cpu() { pack(parts)? } else { stack(parts)? };
        Ok(Self { threads: threads.clone(), weights })
    }

    /// `[.., in]` becomes `[.., out]`.
    ///
    /// # Errors
    /// Where the last dimension is not [`Linear::in_features`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.dim(D::Minus1)? != self.in_features() {
            bail!("a linear layer of {} inputs was given rows of {:?}", self.in_features(), x.dims());
        }
        let packed = match &self.weights {
            Weights::Packed(packed) => packed,
            Weights::Tensors { weight, bias } => return fallback::linear(x, weight, bias.as_ref()),
        };
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = packed.outputs;
        }
        let wide = x.to_dtype(DType::F32)?;
        let out = with_f32(&wide, |x| Ok(packed.product(&self.threads, x)))?;
        from_f32(out, &shape)?.to_dtype(x.dtype())
    }

    /// Rows of the weight: `[ids, in]`, what an embedding looks up. f32 on the CPU.
    ///
    /// # Errors
    /// Where an id is not below [`Linear::out_features`].
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.out_features()) {
            bail!("row {id} of a weight of {} rows", self.out_features());
        }
        match &self.weights {
            Weights::Tensors { weight, .. } => weight.index_select(&Tensor::new(ids, weight.device())?, 0),
            Weights::Packed(packed) => {
                let mut rows = vec![0.0; ids.len() * packed.inputs];
                for (id, row) in ids.iter().zip(rows.chunks_exact_mut(packed.inputs)) {
                    packed.row(*id as usize, row);
                }
                from_f32(rows, &[ids.len(), packed.inputs])
            }
        }
    }

    /// Values of an input row.
    pub fn in_features(&self) -> usize {
        match &self.weights {
            Weights::Packed(packed) => packed.inputs,
            Weights::Tensors { weight, .. } => weight.dims()[1],
        }
    }

    /// Values of an output row.
    pub fn out_features(&self) -> usize {
        match &self.weights {
            Weights::Packed(packed) => packed.outputs,
            Weights::Tensors { weight, .. } => weight.dims()[0],
        }
    }
}

fn pack(parts: &[Part<'_>]) -> Result<Weights> {
    let inputs = parts[0].weight.dim(1)?;
    let mut outputs = 0;
    for part in parts {
        let (rows, columns) = part.weight.dims2()?;
        if columns != inputs {
            bail!("stacked linear layers have {inputs} and {columns} inputs");
        }
        outputs += rows;
    }
    let bf16 = parts.iter().all(|part| part.weight.dtype() == DType::BF16);
    let mut packed = Packed::zeros(inputs, outputs, bf16);
    let mut first = 0;
    for part in parts {
        let weight = if bf16 { part.weight.clone() } else { part.weight.to_dtype(DType::F32)? };
        with_values(&weight, |values| {
            packed.set_rows(first, values);
            Ok(())
        })?;
        let rows = part.weight.dim(0)?;
        if let Some(bias) = part.bias {
            if bias.dims() != [rows] {
                bail!("a linear layer of {rows} outputs has a bias of {:?}", bias.dims());
            }
            with_f32(&bias.to_dtype(DType::F32)?, |values| {
                packed.set_bias(first, values);
                Ok(())
            })?;
        }
        first += rows;
    }
    Ok(Weights::Packed(packed))
}

fn stack(parts: &[Part<'_>]) -> Result<Weights> {
    let weights: Vec<&Tensor> = parts.iter().map(|part| part.weight).collect();
    let weight = Tensor::cat(&weights, 0)?;
    if parts.iter().all(|part| part.bias.is_none()) {
        return Ok(Weights::Tensors { weight, bias: None });
    }
    let bias_of = |part: &Part<'_>| match part.bias {
        Some(bias) => Ok(bias.clone()),
        None => Tensor::zeros(part.weight.dim(0)?, part.weight.dtype(), part.weight.device()),
    };
    let biases = parts.iter().map(bias_of).collect::<Result<Vec<_>>>()?;
    Ok(Weights::Tensors { weight, bias: Some(Tensor::cat(&biases, 0)?) })
}
