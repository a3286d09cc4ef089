//! From named tensors to layers: one place that knows which type each kind of weight is held in.

use candle_core::{DType, Device, Tensor};

use crate::ModelError;
use crate::kernels::{Linear, Part, Threads};
use crate::weights::Weights;

/// What layers are made with.
#[derive(Debug)]
pub(crate) struct Loader<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) device: &'a Device,
    pub(crate) dtype: DType,
    pub(crate) threads: &'a Threads,
}

impl Loader<'_> {
    /// On the CPU all that is not a matrix stays f32, as the activations do.
    fn vector_dtype(&self) -> DType {
        if self.device.is_cpu() { DType::F32 } else { self.dtype }
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
        let mut tensors = Vec::with_capacity(names.len());
        for (name, outputs) in names {
            let weight = self.weights.tensor(
                &format!("{name}.weight"),
                &[*outputs, inputs],
                self.dtype,
                self.device,
            )?;
            let bias = if bias {
                Some(self.weights.tensor(
                    &format!("{name}.bias"),
                    &[*outputs],
                    self.vector_dtype(),
                    self.device,
                )?)
            } else {
                None
            };
            tensors.push((weight, bias));
        }
        let parts: Vec<Part<'_>> =
            tensors.iter().map(|(weight, bias)| Part { weight, bias: bias.as_ref() }).collect();
        Ok(Linear::new(self.threads, &parts)?)
    }

    /// A table or matrix that is given by its whole name.
    pub(crate) fn matrix(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear, ModelError> {
        let weight = self.weights.tensor(name, &[outputs, inputs], self.dtype, self.device)?;
        Ok(Linear::new(self.threads, &[Part { weight: &weight, bias: None }])?)
    }
}
