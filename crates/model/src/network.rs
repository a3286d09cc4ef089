//! Both halves of the model, loaded from one checkpoint.

use candle_core::{DType, Device};

use crate::ModelError;
use crate::config::Config;
use crate::kernels::Threads;
use crate::loader::Loader;
use crate::text::TextModel;
use crate::vision::VisionTower;
use crate::weights::Weights;

/// The weights, ready to compute.
#[derive(Debug)]
pub struct Network {
    /// Its shape.
    pub config: Config,
    /// Patches to tokens.
    pub vision: VisionTower,
    /// Tokens to logits.
    pub text: TextModel,
}

impl Network {
    /// Loads all tensors that the config asks for.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] where one is missing or has another shape.
    pub fn load(
        config: &Config,
        weights: &Weights,
        device: &Device,
        dtype: DType,
        threads: &Threads,
    ) -> Result<Self, ModelError> {
        let loader = Loader { weights, device, dtype, threads };
        Ok(Self {
            config: config.clone(),
            vision: VisionTower::load(&config.vision, &loader)?,
            text: TextModel::load(config, &loader)?,
        })
    }
}
