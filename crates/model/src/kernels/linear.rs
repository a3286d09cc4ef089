//! Products with a weight matrix: `x · Wᵀ + bias`.

use std::ops::Range;

use candle_core::{D, DType, Error, Result, Tensor, bail};

use super::product::Packed;
use super::quantized::{BlockType, PartShape, Quantized};
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

/// One weight matrix in blocks, of those that a [`Linear`] stacks.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedPart<'a> {
    /// The weight.
    pub weight: QuantizedWeight<'a>,
    /// `[out]`.
    pub bias: Option<&'a Tensor>,
}

/// A weight that is held in blocks of small integers.
#[derive(Clone, Copy, Debug)]
pub enum QuantizedWeight<'a> {
    /// Floats that are quantised, as candle does it.
    Floats {
        /// `[out, in]`, on the CPU.
        values: &'a Tensor,
        /// What they become; `q8_0` where rows are no whole blocks of it.
        kind: BlockType,
    },
    /// A file's blocks, used as they are.
    Blocks {
        /// Row by row.
        bytes: &'a [u8],
        /// Their type.
        kind: BlockType,
        /// Rows.
        outputs: usize,
    },
}

/// A linear layer, or several that read the same input stacked into one.
///
/// On the CPU weights are f32, or bf16 where all parts are: then they are widened as they are read, and activations stay f32;
/// or blocks of small integers, where activations are quantised to 8 bits in each call.
#[derive(Debug)]
pub struct Linear {
    threads: Threads,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    Packed(Packed),
    Quantized(Quantized),
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

    /// Packs parts in blocks, whose rows of `inputs` weights are stacked in the order given. Computes on the CPU.
    ///
    /// # Errors
    /// Where there is no part, or rows are no whole blocks of 32.
    pub fn quantized(threads: &Threads, inputs: usize, parts: &[QuantizedPart<'_>]) -> Result<Self> {
        if parts.is_empty() {
            bail!("a linear layer of no parts");
        }
        let weights = Weights::Quantized(pack_blocks(threads, inputs, parts)?);
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
        match &self.weights {
            Weights::Packed(packed) => on_rows(x, packed.outputs, |x| packed.product(&self.threads, x)),
            Weights::Quantized(packed) => on_rows(x, packed.outputs, |x| packed.product(&self.threads, x)),
            Weights::Tensors { weight, bias } => fallback::linear(x, weight, bias.as_ref()),
        }
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
            Weights::Packed(packed) => look_up(ids, packed.inputs, |id, row| packed.row(id, row)),
            Weights::Quantized(packed) => look_up(ids, packed.inputs, |id, row| packed.row(id, row)),
        }
    }

    /// The same for ids that lie on the weight's device: there they are not brought here.
    ///
    /// # Errors
    /// As [`Linear::rows`]; on a device such an id may give anything instead.
    pub fn rows_there(&self, ids: &Tensor) -> Result<Tensor> {
        match &self.weights {
            Weights::Tensors { weight, .. } => weight.index_select(ids, 0),
            _ => self.rows(&ids.to_vec1::<u32>()?),
        }
    }

    /// Bytes of the weights, as they are held.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Packed(packed) => packed.bytes(),
            Weights::Quantized(packed) => packed.bytes(),
            Weights::Tensors { weight, bias } => {
                let of = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
                of(weight) + bias.as_ref().map_or(0, of)
            }
        }
    }

    /// Values of an input row.
    pub fn in_features(&self) -> usize {
        match &self.weights {
            Weights::Packed(packed) => packed.inputs,
            Weights::Quantized(packed) => packed.inputs,
            Weights::Tensors { weight, .. } => weight.dims()[1],
        }
    }

    /// Values of an output row.
    pub fn out_features(&self) -> usize {
        match &self.weights {
            Weights::Packed(packed) => packed.outputs,
            Weights::Quantized(packed) => packed.outputs,
            Weights::Tensors { weight, .. } => weight.dims()[0],
        }
    }
}

/// Applies a product of ours to `[.., in]`: `[.., outputs]` of the same type.
fn on_rows(x: &Tensor, outputs: usize, product: impl FnOnce(&[f32]) -> Vec<f32>) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    let out = with_f32(&x.to_dtype(DType::F32)?, |x| Ok(product(x)))?;
    from_f32(out, &shape)?.to_dtype(x.dtype())
}

/// `[ids, inputs]`, each row written by `row`.
fn look_up(ids: &[u32], inputs: usize, row: impl Fn(usize, &mut [f32])) -> Result<Tensor> {
    let mut rows = vec![0.0; ids.len() * inputs];
    for (id, values) in ids.iter().zip(rows.chunks_exact_mut(inputs)) {
        row(*id as usize, values);
    }
    from_f32(rows, &[ids.len(), inputs])
}

/// A part's bias as f32, checked to be one per output.
fn with_bias(bias: Option<&Tensor>, outputs: usize, set: impl FnOnce(&[f32])) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    if bias.dims() != [outputs] {
        bail!("a linear layer of {outputs} outputs has a bias of {:?}", bias.dims());
    }
    with_f32(&bias.to_dtype(DType::F32)?, |values| {
        set(values);
        Ok(())
    })
}

fn pack_blocks(threads: &Threads, inputs: usize, parts: &[QuantizedPart<'_>]) -> Result<Quantized> {
    let shapes = parts.iter().map(|part| part.weight.shape(inputs)).collect::<Result<Vec<_>>>()?;
    let mut packed = Quantized::zeros(inputs, &shapes)?;
    for (number, (part, PartShape { kind, outputs })) in parts.iter().zip(shapes).enumerate() {
        let row_bytes = inputs / kind.weights() * kind.bytes();
        packed.fill(threads, number, &|rows: Range<usize>| match part.weight {
            QuantizedWeight::Floats { values, .. } => {
                kind.quantize(&values.narrow(0, rows.start, rows.len())?)
            }
            QuantizedWeight::Blocks { bytes, .. } => {
                Ok(bytes[rows.start * row_bytes..rows.end * row_bytes].to_vec())
            }
        })?;
        with_bias(part.bias, outputs, |values| packed.set_bias(number, values))?;
    }
    Ok(packed)
}

impl QuantizedWeight<'_> {
    fn shape(&self, inputs: usize) -> Result<PartShape> {
        match *self {
            Self::Floats { values, kind } => {
                let (outputs, columns) = values.dims2()?;
                if columns != inputs {
                    bail!("stacked linear layers have {inputs} and {columns} inputs");
                }
                let kind = kind.fitting(inputs).ok_or_else(|| {
                    Error::msg(format!(
                        "rows of {inputs} weights are no whole blocks of 32: use --dtype f32 or bf16"
                    ))
                })?;
                Ok(PartShape { kind, outputs })
            }
            Self::Blocks { bytes, kind, outputs } => {
                let wanted = (inputs / kind.weights() * kind.bytes()).checked_mul(outputs);
                if wanted != Some(bytes.len()) {
                    bail!("{} bytes of blocks for {outputs} rows of {inputs} weights", bytes.len());
                }
                Ok(PartShape { kind, outputs })
            }
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
        with_bias(part.bias, rows, |values| packed.set_bias(first, values))?;
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
