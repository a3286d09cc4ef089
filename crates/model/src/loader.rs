//! From named tensors to layers: one place that knows which type each kind of weight is held in.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::ModelError;
use crate::device::WeightTypes;
use crate::kernels::{BlockType, Linear, Part, QuantizedPart, QuantizedWeight, Threads};
use crate::weights::Weights;

/// What layers are made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loader<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) device: &'a Device,
    pub(crate) types: WeightTypes,
    pub(crate) threads: &'a Threads,
    /// Whether blocks of a file are computed with as they are; else they are dequantised.
    pub(crate) in_place: bool,
}

/// A matrix as it is loaded.
enum Matrix {
    /// `[out, in]`; to be quantised where there is a type.
    Floats(Tensor, Option<BlockType>),
    Blocks {
        kind: BlockType,
        bytes: Vec<u8>,
        outputs: usize,
    },
}

impl Loader<'_> {
    /// A loader of floats alone.
    pub(crate) fn plain(self) -> Self {
        Self { types: WeightTypes { blocks: None, ..self.types }, in_place: false, ..self }
    }

    /// The type of activations, and of all that is not a matrix: on the CPU f32.
    pub(crate) fn vector_dtype(&self) -> DType {
        if self.device.is_cpu() { DType::F32 } else { self.types.plain.unwrap_or(DType::F32) }
    }

    /// The type of a matrix that is not quantised: the wanted one, or bf16 where the file has it so.
    fn matrix_dtype(&self, name: &str) -> DType {
        self.types.plain.unwrap_or_else(|| {
            if self.weights.dtype(name) == Some(DType::BF16) { DType::BF16 } else { DType::F32 }
        })
    }

    /// `name.weight` of a norm, `[width]`.
    pub(crate) fn norm(&self, name: &str, width: usize) -> Result<Tensor, ModelError> {
        self.weights.tensor(&format!("{name}.weight"), &[width], self.vector_dtype(), self.device)
    }

    /// The layers of these names and output widths stacked into one; each has `name.weight` and, where `bias`, `name.bias`.
    pub(crate) fn linear(
        &self,
        names: &[(String, usize)],
        inputs: usize,
        bias: bool,
    ) -> Result<Linear, ModelError> {
        let mut parts = Vec::with_capacity(names.len());
        for (name, outputs) in names {
            let matrix = self.load(&format!("{name}.weight"), *outputs, inputs)?;
            let bias = if bias {
                let name = format!("{name}.bias");
                Some(self.weights.tensor(&name, &[*outputs], self.vector_dtype(), self.device)?)
            } else {
                None
            };
            parts.push((matrix, bias));
        }
        self.stack(&parts, inputs)
    }

    /// The table of embeddings, as the file has it, and the head, as the layers are: the table itself where the two are
    /// `tied` and of one type.
    pub(crate) fn table_and_head(
        &self,
        tied: bool,
        vocab: usize,
        hidden: usize,
    ) -> Result<(Arc<Linear>, Arc<Linear>), ModelError> {
        const TABLE: &str = "model.embed_tokens.weight";
        let as_in_file = Self { types: WeightTypes { blocks: None, ..self.types }, ..*self };
        let table = Arc::new(as_in_file.matrix(TABLE, vocab, hidden)?);
        if tied && (self.types.blocks.is_none() || self.weights.in_blocks(TABLE)) {
            return Ok((Arc::clone(&table), table));
        }
        // A head decides between near equals: 4 bits are too few for it.
        let types = WeightTypes { blocks: self.types.blocks.map(|_| BlockType::Q8_0), ..self.types };
        let name = if tied { TABLE } else { "lm_head.weight" };
        Ok((table, Arc::new(Self { types, ..*self }.matrix(name, vocab, hidden)?)))
    }

    fn matrix(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear, ModelError> {
        self.stack(&[(self.load(name, outputs, inputs)?, None)], inputs)
    }

    fn load(&self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, ModelError> {
        let shape = [outputs, inputs];
        let in_place = self.in_place && self.device.is_cpu();
        if in_place && let Some((kind, bytes)) = self.weights.blocks(name, &shape)? {
            return Ok(Matrix::Blocks { kind, bytes, outputs });
        }
        // Blocks of a type that no product is written for go into the nearest that there is one for.
        let other = (in_place && self.weights.in_blocks(name)).then_some(BlockType::Q8_0);
        let floats = self.weights.tensor(name, &shape, self.matrix_dtype(name), self.device)?;
        Ok(Matrix::Floats(floats, other.or(self.types.blocks)))
    }

    /// Where one of the matrices is in blocks all are, as they read the same input.
    fn stack(&self, parts: &[(Matrix, Option<Tensor>)], inputs: usize) -> Result<Linear, ModelError> {
        let plain = parts.iter().map(|(matrix, bias)| match matrix {
            Matrix::Floats(weight, None) => Some(Part { weight, bias: bias.as_ref() }),
            _ => None,
        });
        if let Some(parts) = plain.collect::<Option<Vec<_>>>() {
            return Ok(Linear::new(self.threads, &parts)?);
        }
        let quantized = parts.iter().map(|(matrix, bias)| {
            let weight = match matrix {
                Matrix::Floats(values, kind) => {
                    QuantizedWeight::Floats { values, kind: kind.unwrap_or(BlockType::Q8_0) }
                }
                Matrix::Blocks { kind, bytes, outputs } => {
                    QuantizedWeight::Blocks { bytes, kind: *kind, outputs: *outputs }
                }
            };
            QuantizedPart { weight, bias: bias.as_ref() }
        });
        Ok(Linear::quantized(self.threads, inputs, &quantized.collect::<Vec<_>>())?)
    }
}
