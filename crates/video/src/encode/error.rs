//! Why an encoding failed.

use std::{fmt, path::PathBuf};

/// Why a file or picture could not be written.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum EncodeError {
    /// This FFmpeg has no libx264.
    #[error(
        "FFmpeg on this machine has no libx264 encoder: install a build with it (Debian and Ubuntu: apt-get install libavcodec-extra)"
    )]
    CodecMissing,
    /// A side out of range or odd.
    #[error("frame size {width}x{height} px cannot be encoded: sides must be even and from 16 to 8192")]
    Size {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A zero or overlarge number in the frame rate.
    #[error("frame rate {numerator}/{denominator} cannot be encoded: both numbers must be from 1 to 1000000")]
    Rate {
        /// Frames …
        numerator: u32,
        /// … in so many seconds.
        denominator: u32,
    },
    /// Not a number from 0 to 51.
    #[error("crf {0} is out of range: use 0 (lossless) to 51 (worst)")]
    Crf(f32),
    /// Keyframes every 0 frames, or further apart than libx264 counts.
    #[error("keyframe distance of {0} frames is out of range: use 1 to 100000")]
    Gop(u32),
    /// The path cannot be handed to FFmpeg.
    #[error("path {0:?} cannot be written: use a file name in UTF-8")]
    Path(PathBuf),
    /// A buffer of the wrong length.
    #[error(
        "frame has {got} bytes where its size needs {expected}: pass RGB, 3 bytes a pixel, without padding"
    )]
    FrameBytes {
        /// What came.
        got: usize,
        /// width × height × 3.
        expected: usize,
    },
    /// Finished before the first frame.
    #[error("no frame was given: a video needs one at least")]
    NoFrames,
    /// The codec refused.
    #[error("cannot {step}: {cause}")]
    Codec {
        /// What was tried.
        step: &'static str,
        /// What FFmpeg said.
        cause: String,
    },
    /// The file system refused.
    #[error("cannot {step} {path:?}: {cause}")]
    File {
        /// What was tried.
        step: &'static str,
        /// The file wanted.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
}

impl EncodeError {
    pub(super) fn codec(step: &'static str, cause: impl fmt::Display) -> Self {
        Self::Codec { step, cause: cause.to_string() }
    }
}
