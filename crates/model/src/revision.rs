//! A short content hash of a checkpoint, recorded in traces.
//!
//! Hashed are config.json whole and, of each weight file, its size, its first 64 KiB (the header's beginning) and its bytes:
//! all of them up to 64 MiB, else 64 evenly spaced stretches of 64 KiB. Two fine-tunes of one model differ everywhere, so
//! that the sample tells them apart; a change of a few single weights in a large file may go unseen.

use crate::ModelError;
use crate::device::DTypeChoice;
use crate::files::ModelFiles;
use crate::weights::{open_weights, weight_files};

const WHOLE: u64 = 64 << 20;
const STRETCH: u64 = 64 << 10;
const STRETCHES: u64 = 64;

/// The first 16 hexadecimal digits of the hash; weights that are quantised as they are loaded have `+q8_0` or `+q4k` after it.
pub(crate) fn revision(files: &ModelFiles, dtype: DTypeChoice) -> Result<String, ModelError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&files.require("config.json")?);
    let mut buffer = vec![0; STRETCH as usize];
    for name in weight_files(files)? {
        let blob = open_weights(files, &name)?;
        let size = blob.len();
        hasher.update(name.as_bytes()).update(&size.to_le_bytes());
        let step = if size <= WHOLE { STRETCH } else { size / STRETCHES };
        let mut at = 0;
        while at < size {
            let stretch = &mut buffer[..STRETCH.min(size - at) as usize];
            blob.read_at(at, stretch)?;
            hasher.update(stretch);
            at += step;
        }
    }
    let quantized = if dtype.quantizes() { format!("+{dtype}") } else { String::new() };
    Ok(format!("{}{quantized}", &hasher.finalize().to_hex()[..16]))
}
