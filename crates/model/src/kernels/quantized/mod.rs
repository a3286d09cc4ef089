//! Products with weights in ggml's blocks of small integers, `q8_0` and `q4_K`, the types of llama.cpp's files.
//!
//! Activations become blocks of 32 whole numbers of 8 bits with one f32 scale each, as in ggml (whose scale is f16 for
//! `q8_0`, and one for 256 values for `q4_K`). A block's products are then whole numbers and exact in any order; what is
//! added up in f32 is one term per block, block after block, by one fused multiply-add each. So a result's bits depend
//! neither on rows, threads and pieces, nor on the machine: AVX-512 with VNNI, AVX2 and the portable loop give the same.
//!
//! Block types: ggml, `ggml-common.h` <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod product;
mod repack;
#[cfg(test)]
mod tests;
mod tile;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Result, Tensor};

pub(super) use product::{PartShape, Quantized};

/// Values of a block of activations, and weights that share a scale.
const BLOCK: usize = 32;

/// A type of blocks that products are computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockType {
    /// 32 weights of 8 bits and an f16 scale: 8.5 bits a weight.
    Q8_0,
    /// 256 weights of 4 bits; each 32 have a 6 bit scale and a 6 bit minimum, all an f16 scale of both: 4.5 bits a weight
    /// in files, 4.6 here.
    Q4K,
}

impl BlockType {
    /// Each.
    pub const ALL: [Self; 2] = [Self::Q8_0, Self::Q4K];

    /// Weights in a block: a row's length is a multiple of it.
    pub fn weights(self) -> usize {
        match self {
            Self::Q8_0 => BLOCK,
            Self::Q4K => 256,
        }
    }

    /// Bytes of a block in a file.
    pub fn bytes(self) -> usize {
        match self {
            Self::Q8_0 => 34,
            Self::Q4K => 144,
        }
    }

    /// The type by candle's name.
    pub fn ggml(self) -> GgmlDType {
        match self {
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4K => GgmlDType::Q4K,
        }
    }

    /// This type, or `q8_0` where rows are no whole blocks of this one but of that; none where of neither.
    pub fn fitting(self, inputs: usize) -> Option<Self> {
        [self, Self::Q8_0].into_iter().find(|kind| inputs.is_multiple_of(kind.weights()))
    }

    /// Blocks of a file for floats on the CPU whose rows are whole blocks; candle rounds as ggml does.
    pub(super) fn quantize(self, floats: &Tensor) -> Result<Vec<u8>> {
        // candle quantises all memory that lies behind a tensor, also where the tensor is a part of it.
        let values: Vec<f32> = floats.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let blocks =
            QTensor::quantize(&Tensor::from_vec(values, floats.shape(), &Device::Cpu)?, self.ggml())?;
        Ok(blocks.data()?.into_owned())
    }
}
