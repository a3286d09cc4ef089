//! What is worth keeping of an opened video, so that the next open reads no index bytes: the probe, the keyframe
//! index, and the bytes of the container's header and index (compressed), which FFmpeg wants to see again.

use serde::{Deserialize, Serialize};

use crate::{KeyframeIndex, Probe};

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
}

/// A range of the object that the demuxer read while it opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeaderPiece {
    /// First byte.
    pub at: u64,
    /// Its bytes, deflated and in base64.
    pub data: String,
}
