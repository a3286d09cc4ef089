//! Products with a weight matrix: `x · Wᵀ + bias`.

use candle_core::{Result, Tensor};

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
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Packs the parts, whose rows are stacked in the order given. The tensors can be dropped afterwards.
    ///
    /// # Errors
    /// Where the parts differ in their inputs.
    pub fn new(_threads: &Threads, parts: &[Part<'_>]) -> Result<Self> {
        let weights: Vec<&Tensor> = parts.iter().map(|part| part.weight).collect();
        let weight = Tensor::cat(&weights, 0)?;
        let bias = if parts.iter().all(|part| part.bias.is_none()) {
            None
        } else {
            let zeros = |part: &Part<'_>| {
                Tensor::zeros(part.weight.dim(0)?, part.weight.dtype(), part.weight.device())
            };
            let biases = parts
                .iter()
                .map(|part| part.bias.cloned().map_or_else(|| zeros(part), Ok))
                .collect::<Result<Vec<_>>>()?;
            Some(Tensor::cat(&biases, 0)?)
        };
        Ok(Self { weight, bias })
    }

    /// `[.., in]` becomes `[.., out]`.
    ///
    /// # Errors
    /// Where the last dimension is not [`Linear::in_features`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weight = self.weight.to_dtype(x.dtype())?;
        let bias = self.bias.as_ref().map(|bias| bias.to_dtype(x.dtype())).transpose()?;
        fallback::linear(x, &weight, bias.as_ref())
    }

    /// Rows of the weight: `[ids, in]`, what an embedding looks up.
    ///
    /// # Errors
    /// Where an id is not below [`Linear::out_features`].
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(ids, self.weight.device())?;
        let rows = self.weight.index_select(&ids, 0)?;
        if rows.device().is_cpu() { rows.to_dtype(candle_core::DType::F32) } else { Ok(rows) }
    }

    /// Values of an input row.
    pub fn in_features(&self) -> usize {
        self.weight.dims()[1]
    }

    /// Values of an output row.
    pub fn out_features(&self) -> usize {
        self.weight.dims()[0]
    }
}
