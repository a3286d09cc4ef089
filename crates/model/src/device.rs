//! Where and in what type a model computes, and the other choices of loading.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};

use crate::ModelError;
use crate::kernels::BlockType;
use crate::rope::PositionRule;

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// All cores, or `LoadOptions::threads` of them.
    #[default]
    Cpu,
    /// An NVIDIA GPU by number; needs a build with the feature `cuda`.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                text.strip_prefix("cuda:").and_then(|number| number.parse().ok()).map(Self::Cuda).ok_or_else(
                    || ModelError::Device(format!("device {text:?} is unknown: use cpu, cuda or cuda:1")),
                )
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl DeviceChoice {
    /// Whether it is there.
    ///
    /// # Errors
    /// [`ModelError::Device`] where this build or this machine does not have it.
    pub fn probe(self) -> Result<(), ModelError> {
        self.open().map(drop)
    }

    pub(crate) fn open(self) -> Result<Device, ModelError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => {
                if !cfg!(feature = "cuda") {
                    let hint = "this build has no CUDA: use --device cpu, or build with --features cuda";
                    return Err(ModelError::Device(format!("device cuda:{number}: {hint}")));
                }
                Device::new_cuda(number)
                    .map_err(|error| ModelError::Device(format!("device cuda:{number}: {error}")))
            }
        }
    }
}

/// In what type weights are held. On the CPU activations are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DTypeChoice {
    /// 32 bit floats.
    #[default]
    F32,
    /// bfloat16: half the memory, two to three digits.
    Bf16,
    /// The language model's matrices in blocks of 8 bit numbers, a quarter of f32's memory; the rest as the files have it.
    /// On the CPU only.
    Q8_0,
    /// As `Q8_0`, but of 4 bit numbers where rows are whole blocks of 256; the head stays of 8 bits.
    Q4K,
}

impl DTypeChoice {
    /// Its name, as it is parsed.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4k",
        }
    }

    /// Whether it makes whole numbers of floats.
    pub fn quantizes(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4K)
    }
}

impl fmt::Display for DTypeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DTypeChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "f32" | "float32" => Ok(Self::F32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "q8_0" => Ok(Self::Q8_0),
            "q4k" | "q4_k" => Ok(Self::Q4K),
            _ => Err(ModelError::Device(format!("dtype {text:?} is unknown: use f32, bf16, q8_0 or q4k"))),
        }
    }
}

/// In what types a network's weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightTypes {
    /// What is not quantised; none: bf16 where the files have it so, else f32.
    pub plain: Option<DType>,
    /// The matrices of the language model; none: they are not quantised.
    pub blocks: Option<BlockType>,
}

impl From<DType> for WeightTypes {
    fn from(dtype: DType) -> Self {
        Self { plain: Some(dtype), blocks: None }
    }
}

impl From<DTypeChoice> for WeightTypes {
    fn from(choice: DTypeChoice) -> Self {
        match choice {
            DTypeChoice::F32 => DType::F32.into(),
            DTypeChoice::Bf16 => DType::BF16.into(),
            DTypeChoice::Q8_0 => Self { plain: None, blocks: Some(BlockType::Q8_0) },
            DTypeChoice::Q4K => Self { plain: None, blocks: Some(BlockType::Q4K) },
        }
    }
}

/// How to load a model.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// Where it computes.
    pub device: DeviceChoice,
    /// In what type its weights are held.
    pub dtype: DTypeChoice,
    /// Threads that compute; none means one per core.
    pub threads: Option<usize>,
    /// Most bytes of keys and values of all models on the device, of running requests and kept ones; none means a
    /// quarter of the memory that is free, at least 256 MiB. A request that needs more is refused, others wait.
    pub kv_cache_bytes: Option<usize>,
    /// Most bytes of these that are kept for prompts that may come again.
    pub prefix_cache_bytes: usize,
    /// Most bytes of vision embeddings kept.
    pub vision_cache_bytes: usize,
    /// Tokens of prompts that run at a time; bounds what others wait for a long prompt, and the wait for a cancellation.
    pub prefill_chunk: usize,
    /// Where text goes on after a video.
    pub position_rule: PositionRule,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Cpu,
            dtype: DTypeChoice::F32,
            threads: None,
            kv_cache_bytes: None,
            prefix_cache_bytes: 768 << 20,
            vision_cache_bytes: 256 << 20,
            prefill_chunk: 512,
            position_rule: PositionRule::Published,
        }
    }
}
