//! Why a video cannot be opened or read. Every message names the object (its query left out) and, where bytes were
//! at fault, the position. What FFmpeg says of a file whose bytes did not arrive is misleading, so the error of the
//! bytes comes first (see `reader`).

use spectemp_engine::FrameError;

/// What went wrong with a video.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum VideoError {
    /// The store does not know the object.
    #[error("{uri}: there is no such object (asked for byte {at}: {cause})")]
    Missing {
        /// The object.
        uri: String,
        /// First byte that was asked for.
        at: u64,
        /// What the store says.
        cause: String,
    },
    /// The store knows the caller and refuses, or a signature is out of date.
    #[error(
        "{uri}: the store refuses access (asked for byte {at}: {cause}): check the credentials or sign the URL again"
    )]
    Forbidden {
        /// The object.
        uri: String,
        /// First byte that was asked for.
        at: u64,
        /// What the store says.
        cause: String,
    },
    /// An object of zero bytes.
    #[error("{uri}: the object is empty (0 bytes)")]
    Empty {
        /// The object.
        uri: String,
    },
    /// The server sends whole objects only.
    #[error(
        "{uri}: the server does not serve byte ranges ({cause}): use one that answers Range with 206, or an object store"
    )]
    NoRanges {
        /// The object.
        uri: String,
        /// What it answered.
        cause: String,
    },
    /// The object has another ETag or size than when it was opened.
    #[error("{uri}: the object changed while it was being read (at byte {at}): open it again")]
    Changed {
        /// The object.
        uri: String,
        /// First byte of the range that was asked for.
        at: u64,
    },
    /// A request failed: connection, server fault, throttling.
    #[error("{uri}: reading {length} bytes at byte {at} failed: {cause}")]
    Store {
        /// The object.
        uri: String,
        /// First byte that was asked for.
        at: u64,
        /// How many bytes.
        length: u64,
        /// What the store says.
        cause: String,
    },
    /// A request was refused for good (a 4xx that is neither 403 nor 404).
    #[error("{uri}: reading {length} bytes at byte {at} was refused: {cause}")]
    Refused {
        /// The object.
        uri: String,
        /// First byte that was asked for.
        at: u64,
        /// How many bytes.
        length: u64,
        /// What the store says.
        cause: String,
    },
    /// A request or a decoding step took longer than the limit.
    #[error("{uri}: no progress for {seconds} s at byte {at}: timed out")]
    Timeout {
        /// The object.
        uri: String,
        /// Where.
        at: u64,
        /// The limit.
        seconds: u64,
    },
    /// No demuxer knows the bytes.
    #[error(
        "{uri}: not a video file that can be read (of {size} bytes, up to byte {at} were looked at): {cause}"
    )]
    NotAVideo {
        /// The object.
        uri: String,
        /// Its size.
        size: u64,
        /// How far it was read.
        at: u64,
        /// What the demuxer says.
        cause: String,
    },
    /// A container without a video stream.
    #[error("{uri}: the {container} file has no video stream")]
    NoVideoStream {
        /// The object.
        uri: String,
        /// The container.
        container: String,
    },
    /// No decoder for the codec.
    #[error("{uri}: no decoder for {codec} in this build of FFmpeg")]
    Codec {
        /// The object.
        uri: String,
        /// The codec.
        codec: String,
    },
    /// The bytes are there but are no video: damaged, cut off, or an index that points elsewhere.
    #[error("{uri}: broken near byte {at}{time}: {cause}")]
    Broken {
        /// The object.
        uri: String,
        /// Where reading had got to.
        at: u64,
        /// The time that was wanted, as ` (time 3.900 s)`; empty while opening.
        time: String,
        /// What is wrong.
        cause: String,
    },
    /// Only a scan of the object can find the frames, and none was allowed.
    #[error(
        "{uri}: the {container} file has no index, and finding {wanted} needs a scan of the object: {cause}; allow it with --allow-scan"
    )]
    NeedsScan {
        /// The object.
        uri: String,
        /// The container.
        container: String,
        /// What was looked for.
        wanted: String,
        /// Why bisecting does not do.
        cause: String,
    },
    /// Frames cannot be brought to the wanted size.
    #[error("{uri}: {cause}")]
    Pixels {
        /// The object.
        uri: String,
        /// Why.
        cause: String,
    },
    /// The wanted times make no sense.
    #[error("{uri}: {cause}")]
    Request {
        /// The object.
        uri: String,
        /// Why.
        cause: String,
    },
    /// FFmpeg or the process ran out of something.
    #[error("{uri}: {cause}")]
    Resources {
        /// The object.
        uri: String,
        /// Of what.
        cause: String,
    },
    /// The caller cancelled.
    #[error("{uri}: reading was cancelled")]
    Cancelled {
        /// The object.
        uri: String,
    },
}

impl VideoError {
    /// True where another try may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Store { .. } | Self::Timeout { .. } | Self::Changed { .. } | Self::Resources { .. }
        )
    }
}

impl From<VideoError> for FrameError {
    fn from(error: VideoError) -> Self {
        match error {
            VideoError::Cancelled { .. } => Self::Cancelled,
            other if other.is_transient() => Self::Transient(other.to_string()),
            other => Self::Permanent(other.to_string()),
        }
    }
}
