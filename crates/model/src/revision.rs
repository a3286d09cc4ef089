//! A short content hash of a checkpoint, recorded in traces.
//!
//! Hashed are config.json whole and, of each weight file, its size, its first 64 KiB (the header's beginning) and its bytes:
//! all of them up to 64 MiB, else 64 evenly spaced stretches of 64 KiB. Two fine-tunes of one model differ everywhere, so
//! that the sample tells them apart; a change of a few single weights in a large file may go unseen.

use crate::ModelError;
use crate::files::ModelFiles;
use crate::weights::weight_files;

const WHOLE: u64 = 64 << 20;
const STRETCH: u64 = 64 << 10;
const STRETCHES: u64 = 64;

/// The first 16 hexadecimal digits of the hash.
pub(crate) fn revision(files: &ModelFiles) -> Result<String, ModelError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&files.require("config.json")?);
    let mut buffer = vec![0; STRETCH as usize];
    for name in weight_files(files)? {
        let Some(blob) = files.open(&name)? else {
            return Err(ModelError::Missing { model: files.name().to_owned(), file: name });
        };
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
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}
