//! What is worth keeping of an opened video, so that the next open reads no index bytes: the probe, the keyframe
//! index, and the bytes of the container's header and index (compressed), which FFmpeg wants to see again.

use std::io::{Read, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};

use crate::{BLOCK_BYTES, Clock, KeyframeIndex, Layout, Probe, VideoError, fetch::Pins, source::Source};

/// The part of a video that the ledger keeps. It holds for one version of the object only: another ETag or size makes
/// [`crate::Video::open`] start afresh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoRecord {
    /// Layout of this record; another one is ignored.
    pub version: u32,
    /// ETag of the object, where the store gives one.
    pub etag: Option<String>,
    /// Last modification in milliseconds since 1970, which stands in where there is no ETag.
    pub modified_ms: i64,
    /// Bytes of the object.
    pub size: u64,
    /// What the video says of itself.
    pub probe: Probe,
    /// How a keyframe is reached.
    pub layout: Layout,
    /// First and last frame on the container's clock.
    pub clock: Clock,
    /// Keyframes: time to byte offset.
    pub index: KeyframeIndex,
    /// Byte ranges of header and index, deflated and in base64. Absent where they are larger than
    /// [`crate::OpenOptions::record_bytes`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<HeaderPiece>,
}

impl VideoRecord {
    /// The layout that this build writes and reads.
    pub const VERSION: u32 = 1;

    /// True where the record was made of this version of the object.
    pub(crate) fn is_of(&self, source: &Source) -> bool {
        let same_tag = match (&self.etag, source.etag()) {
            (Some(then), Some(now)) => then == now,
            (None, None) => self.modified_ms == source.modified_ms(),
            _ => false,
        };
        same_tag && self.size == source.size()
    }
}

/// A range of the object that the demuxer read while it opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeaderPiece {
    /// First byte.
    pub at: u64,
    /// Its bytes, deflated and in base64.
    pub data: String,
}

/// A header never unpacks to more than this.
const MOST_HEADER_BYTES: u64 = 1 << 30;

/// Packs runs of blocks; nothing where they come to more than `limit` bytes of text.
pub(crate) fn pack(header: &Pins, limit: usize) -> Vec<HeaderPiece> {
    let mut blocks: Vec<(u64, &Bytes)> = header.iter().collect();
    blocks.sort_by_key(|(number, _)| *number);
    let mut pieces = Vec::new();
    let mut total = 0;
    for run in
        blocks.chunk_by(|(one, bytes), (next, _)| one + 1 == *next && bytes.len() as u64 == BLOCK_BYTES)
    {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        let packed =
            run.iter().try_for_each(|(_, bytes)| encoder.write_all(bytes)).and_then(|()| encoder.finish());
        // Writing into memory does not fail.
        let (Ok(packed), Some((first, _))) = (packed, run.first()) else { return Vec::new() };
        let data = STANDARD.encode(packed);
        total += data.len();
        pieces.push(HeaderPiece { at: first * BLOCK_BYTES, data });
        if total > limit {
            return Vec::new();
        }
    }
    pieces
}

/// The blocks of packed pieces.
pub(crate) fn unpack(pieces: &[HeaderPiece], uri: &str) -> Result<Pins, VideoError> {
    let mut pins = Pins::default();
    for piece in pieces {
        let failed = |cause: &dyn std::fmt::Display| VideoError::Request {
            uri: uri.to_owned(),
            cause: format!("the kept record of this video is damaged at byte {}: {cause}", piece.at),
        };
        let packed = STANDARD.decode(&piece.data).map_err(|error| failed(&error))?;
        let mut bytes = Vec::new();
        let mut decoder = DeflateDecoder::new(packed.as_slice()).take(MOST_HEADER_BYTES);
        decoder.read_to_end(&mut bytes).map_err(|error| failed(&error))?;
        for (number, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
            pins.insert(piece.at / BLOCK_BYTES + number as u64, Bytes::copy_from_slice(block));
        }
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_it_was_packed() {
        let mut header = Pins::default();
        for (number, length) in [(0, BLOCK_BYTES), (1, BLOCK_BYTES), (7, BLOCK_BYTES), (8, 5)] {
            header.insert(number, Bytes::from(vec![number as u8; length as usize]));
        }
        let pieces = pack(&header, 1 << 20);
        assert_eq!(pieces.iter().map(|piece| piece.at).collect::<Vec<_>>(), vec![0, 7 * BLOCK_BYTES]);
        let back = unpack(&pieces, "x").unwrap();
        assert_eq!(back.bytes(0..2 * BLOCK_BYTES), header.bytes(0..2 * BLOCK_BYTES));
        assert_eq!(
            back.bytes(7 * BLOCK_BYTES..8 * BLOCK_BYTES + 5),
            header.bytes(7 * BLOCK_BYTES..8 * BLOCK_BYTES + 5)
        );
        assert!(pack(&header, 3).is_empty());
    }

    #[test]
    fn a_damaged_record_is_named() {
        let piece = HeaderPiece { at: 5, data: "%%%".into() };
        assert!(matches!(unpack(&[piece], "x"), Err(VideoError::Request { uri, .. }) if uri == "x"));
    }
}
