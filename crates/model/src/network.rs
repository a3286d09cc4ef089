//! Both halves of the model, loaded from one checkpoint.

use candle_core::Device;

use crate::ModelError;
use crate::config::Config;
use crate::device::WeightTypes;
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
    /// [`ModelError::Tensor`] where one is missing or has another shape, [`ModelError::Device`] for blocks elsewhere than on
    /// the CPU.
    pub fn load(
        config: &Config,
        weights: &Weights,
        device: &Device,
        types: impl Into<WeightTypes>,
        threads: &Threads,
    ) -> Result<Self, ModelError> {
        weights.check_config(config)?;
        let loader = Loader { weights, device, types: types.into(), threads, in_place: true };
        if loader.types.blocks.is_some() && !device.is_cpu() {
            let reason = "weights in blocks (q8_0, q4k) are computed with on the CPU only: use --dtype bf16";
            return Err(ModelError::Device(reason.to_owned()));
        }
        Ok(Self {
            config: config.clone(),
            vision: VisionTower::load(&config.vision, &loader.plain())?,
            text: TextModel::load(config, &loader)?,
        })
    }
}
