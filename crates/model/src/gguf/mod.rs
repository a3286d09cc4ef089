//! GGUF, llama.cpp's container: a header of metadata and tensors, then the tensors' bytes, which may be blocks of small
//! integers. Read by position like safetensors; a header is untrusted input, and no number of it is believed before the
//! file was seen to be long enough.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod config;
mod cursor;
mod header;
mod names;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device};
use half::{bf16, f16};

pub(crate) use self::config::check_config;
use self::header::Header;
pub(crate) use self::names::{Join, Place, place};
use crate::ModelError;
use crate::files::Blob;
use crate::kernels::BlockType;

/// Bytes converted at a time.
const CHUNK: usize = 4 << 20;

/// One open file.
#[derive(Debug)]
pub(crate) struct Gguf {
    name: String,
    blob: Blob,
    header: Header,
}

/// What the header says of a tensor.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its type's number in ggml.
    code: u32,
    /// In row order: the last side is the innermost.
    pub(crate) shape: Vec<usize>,
    elements: usize,
    /// From the data's start.
    offset: u64,
}

impl Gguf {
    /// Reads and checks the header.
    pub(crate) fn open(name: impl Into<String>, blob: Blob) -> Result<Self, ModelError> {
        let name = name.into();
        let header = header::read(&blob).map_err(|reason| ModelError::broken(name.clone(), reason))?;
        Ok(Self { name, blob, header })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.header.tensors.get(name)
    }

    /// The type of a tensor of plain floats; none for blocks.
    pub(crate) fn dtype(&self, name: &str) -> Option<DType> {
        match ggml_type(self.entry(name)?.code)? {
            GgmlDType::F32 => Some(DType::F32),
            GgmlDType::F16 => Some(DType::F16),
            GgmlDType::BF16 => Some(DType::BF16),
            _ => None,
        }
    }

    /// A tensor's blocks, row by row, where products are computed with such as they are.
    pub(crate) fn blocks(&self, name: &str) -> Result<Option<(BlockType, Vec<u8>)>, ModelError> {
        let (entry, ggml) = self.typed(name)?;
        let Some(kind) = BlockType::ALL.into_iter().find(|kind| kind.ggml() == ggml) else { return Ok(None) };
        let mut bytes = vec![0; entry.elements / kind.weights() * kind.bytes()];
        self.read(entry, 0, &mut bytes)?;
        Ok(Some((kind, bytes)))
    }

    /// Appends a tensor to `out` as f32, dequantised where it is in blocks.
    pub(crate) fn append_f32(&self, name: &str, out: &mut Vec<f32>) -> Result<(), ModelError> {
        let (entry, kind) = self.typed(name)?;
        let (blocks, bytes) = (entry.elements / kind.block_size(), kind.type_size());
        let step = (CHUNK / bytes).min(blocks).max(1);
        let mut buffer = vec![0; step * bytes];
        out.reserve_exact(entry.elements);
        for first in (0..blocks).step_by(step) {
            let piece = &mut buffer[..step.min(blocks - first) * bytes];
            self.read(entry, (first * bytes) as u64, piece)?;
            append(kind, piece, out)?;
        }
        Ok(())
    }

    /// The entry, and the type where it is one that is read here.
    fn typed(&self, name: &str) -> Result<(&Entry, GgmlDType), ModelError> {
        let entry =
            self.entry(name).ok_or_else(|| ModelError::tensor(name, format!("not in {}", self.name)))?;
        let kind = ggml_type(entry.code).ok_or_else(|| {
            let reason =
                format!("has ggml's type {} in {}, which is not supported here", entry.code, self.name);
            ModelError::tensor(name, reason)
        })?;
        Ok((entry, kind))
    }

    fn read(&self, entry: &Entry, from: u64, bytes: &mut [u8]) -> Result<(), ModelError> {
        self.blob.read_at(self.header.data_start + entry.offset + from, bytes)
    }
}

/// Appends whole blocks as f32.
fn append(kind: GgmlDType, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), ModelError> {
    let (words, halves) = (bytes.as_chunks::<4>().0, bytes.as_chunks::<2>().0);
    match kind {
        GgmlDType::F32 => out.extend(words.iter().map(|word| f32::from_le_bytes(*word))),
        GgmlDType::F16 => out.extend(halves.iter().map(|half| f16::from_le_bytes(*half).to_f32())),
        GgmlDType::BF16 => out.extend(halves.iter().map(|half| bf16::from_le_bytes(*half).to_f32())),
        _ => {
            let elements = bytes.len() / kind.type_size() * kind.block_size();
            let blocks = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, kind)?;
            let values = QTensor::new(blocks, elements)?.dequantize(&Device::Cpu)?;
            out.extend(values.to_vec1::<f32>()?);
        }
    }
    Ok(())
}

/// The types that are read here, by their numbers in ggml's `ggml.h`.
fn ggml_type(code: u32) -> Option<GgmlDType> {
    Some(match code {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}
