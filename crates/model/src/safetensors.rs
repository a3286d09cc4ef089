//! The safetensors container: an 8 byte length, a JSON header, the tensors' bytes. Read by position, one tensor at a time
//! and converted on the way, so that loading needs no more memory than the weights in their wanted type.
//! Every number of a header is checked before it is used; a header is untrusted input.

use std::collections::HashMap;
use std::path::Path;

use half::{bf16, f16};
use serde::Deserialize;
use serde_json::Value;

use crate::ModelError;
use crate::files::Blob;

/// A real header of some thousand tensors has about a megabyte.
const MAX_HEADER: u64 = 100 << 20;

/// Bytes converted at a time.
const CHUNK: usize = 4 << 20;

/// One open file.
#[derive(Debug)]
pub(crate) struct SafeTensors {
    name: String,
    blob: Blob,
    data_start: u64,
    tensors: HashMap<String, Entry>,
}

/// What the header says of a tensor.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Entry {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Entry {
    fn width(&self) -> Option<usize> {
        match self.dtype.as_str() {
            "F64" | "I64" | "U64" => Some(8),
            "F32" | "I32" | "U32" => Some(4),
            "F16" | "BF16" | "I16" | "U16" => Some(2),
            "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" => Some(1),
            _ => None,
        }
    }

    pub(crate) fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side))
    }
}

impl SafeTensors {
    /// Opens a file on disk, a golden file for example.
    pub(crate) fn open_path(path: &Path) -> Result<Self, ModelError> {
        let missing =
            || ModelError::Read { path: path.to_owned(), source: std::io::ErrorKind::NotFound.into() };
        let name = path
            .file_name()
            .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        Self::open(name, Blob::open(path)?.ok_or_else(missing)?)
    }

    /// Reads and checks the header.
    pub(crate) fn open(name: impl Into<String>, blob: Blob) -> Result<Self, ModelError> {
        let name = name.into();
        let fail = |reason: String| ModelError::broken(name.clone(), reason);
        let size = blob.len();
        if size < 8 {
            return Err(fail(format!("{size} bytes are no safetensors file")));
        }
        let mut length = [0; 8];
        blob.read_at(0, &mut length)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length > size - 8 {
            return Err(fail(format!("the header claims {length} bytes of a file of {size}")));
        }
        let mut header = vec![0; length as usize];
        blob.read_at(8, &mut header)?;
        let tensors = parse_header(&header).map_err(fail)?;
        let data_start = 8 + length;
        for (tensor, entry) in &tensors {
            check_entry(entry, size - data_start)
                .map_err(|reason| ModelError::broken(name.clone(), format!("tensor {tensor}: {reason}")))?;
        }
        Ok(Self { name, blob, data_start, tensors })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.tensors.get(name)
    }

    /// Appends a float tensor to `out` as f32.
    pub(crate) fn append_f32(&self, name: &str, out: &mut Vec<f32>) -> Result<(), ModelError> {
        self.convert(name, out, |dtype, bytes, out| {
            match dtype {
                "F32" => out.extend(words::<4>(bytes).map(f32::from_le_bytes)),
                "F16" => out.extend(words::<2>(bytes).map(|word| f16::from_le_bytes(word).to_f32())),
                "BF16" => out.extend(words::<2>(bytes).map(|word| bf16::from_le_bytes(word).to_f32())),
                "F64" => out.extend(words::<8>(bytes).map(|word| f64::from_le_bytes(word) as f32)),
                _ => return false,
            }
            true
        })
    }

    /// Appends a float tensor to `out` as bf16.
    pub(crate) fn append_bf16(&self, name: &str, out: &mut Vec<bf16>) -> Result<(), ModelError> {
        self.convert(name, out, |dtype, bytes, out| {
            match dtype {
                "BF16" => out.extend(words::<2>(bytes).map(bf16::from_le_bytes)),
                "F32" => out.extend(words::<4>(bytes).map(|word| bf16::from_f32(f32::from_le_bytes(word)))),
                "F16" => out
                    .extend(words::<2>(bytes).map(|word| bf16::from_f32(f16::from_le_bytes(word).to_f32()))),
                "F64" => out.extend(words::<8>(bytes).map(|word| bf16::from_f64(f64::from_le_bytes(word)))),
                _ => return false,
            }
            true
        })
    }

    /// An integer tensor.
    pub(crate) fn integers(&self, name: &str) -> Result<Vec<i64>, ModelError> {
        let mut out = Vec::new();
        self.convert(name, &mut out, |dtype, bytes, out: &mut Vec<i64>| {
            match dtype {
                "I64" => out.extend(words::<8>(bytes).map(i64::from_le_bytes)),
                "I32" => out.extend(words::<4>(bytes).map(|word| i64::from(i32::from_le_bytes(word)))),
                "U32" => out.extend(words::<4>(bytes).map(|word| i64::from(u32::from_le_bytes(word)))),
                _ => return false,
            }
            true
        })?;
        Ok(out)
    }

    /// `step` converts a piece of the tensor's bytes and says whether it knows the type.
    fn convert<T>(
        &self,
        name: &str,
        out: &mut Vec<T>,
        step: impl Fn(&str, &[u8], &mut Vec<T>) -> bool,
    ) -> Result<(), ModelError> {
        let entry =
            self.entry(name).ok_or_else(|| ModelError::tensor(name, format!("not in {}", self.name)))?;
        let (start, end) = entry.data_offsets;
        out.reserve_exact(entry.elements().unwrap_or(0));
        let mut buffer = vec![0; CHUNK.min((end - start) as usize)];
        let mut at = start;
        while at < end {
            let piece = &mut buffer[..CHUNK.min((end - at) as usize)];
            self.blob.read_at(self.data_start + at, piece)?;
            if !step(&entry.dtype, piece, out) {
                let reason =
                    format!("has type {} in {}, which is not supported here", entry.dtype, self.name);
                return Err(ModelError::tensor(name, reason));
            }
            at += piece.len() as u64;
        }
        Ok(())
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn parse_header(bytes: &[u8]) -> Result<HashMap<String, Entry>, String> {
    let header: serde_json::Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| format!("the header is not a JSON object: {error}"))?;
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, value)| {
        let entry = serde_json::from_value(value).map_err(|error| format!("tensor {name}: {error}"))?;
        Ok((name, entry))
    });
    tensors.collect()
}

fn check_entry(entry: &Entry, available: u64) -> Result<(), String> {
    let (start, end) = entry.data_offsets;
    if start > end || end > available {
        return Err(format!("bytes {start}..{end} are outside the {available} that the file holds"));
    }
    let Some(width) = entry.width() else { return Err(format!("type {} is unknown", entry.dtype)) };
    let bytes = entry.elements().and_then(|elements| elements.checked_mul(width));
    if bytes.map(|bytes| bytes as u64) != Some(end - start) {
        return Err(format!("{:?} of {} does not fill bytes {start}..{end}", entry.shape, entry.dtype));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with one tensor and one integer tensor.
    fn good() -> Vec<u8> {
        let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"I64","shape":[1],"data_offsets":[16,24]},"__metadata__":{"text":"x"}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        for value in [1.0_f32, 2.0, 3.0, 4.0] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&7_i64.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(Vec<f32>, Vec<i64>), ModelError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let file = SafeTensors::open_path(&path)?;
        let mut values = Vec::new();
        file.append_f32("a", &mut values)?;
        Ok((values, file.integers("b")?))
    }

    #[test]
    fn a_good_file_is_read() {
        assert_eq!(read(&good()).unwrap(), (vec![1.0, 2.0, 3.0, 4.0], vec![7]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn no_change_of_a_file_makes_it_panic(changes in prop::collection::vec((0..180_usize, any::<u8>()), 1..4), cut in 0..200_usize) {
            let mut bytes = good();
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(bytes.len().min(cut.max(60)));
            // An error or other values; what counts is that it returns.
            if let Ok((values, integers)) = read(&bytes) {
                prop_assert!(values.len() * 2 + integers.len() * 4 <= bytes.len());
            }
        }
    }
}
