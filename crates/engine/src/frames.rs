//! The seam to a video: times in, frames at the models' sizes out.

use async_trait::async_trait;
use spectemp_types::{IoFigures, Scaler};
use tokio_util::sync::CancellationToken;

use crate::{PixelBudget, RgbImage};

/// What the loop must know of a video.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VideoFacts {
    /// Seconds from the first displayed frame to the end of the last one.
    pub duration_s: f64,
    /// Displayed width in pixels (rotation and sample aspect ratio applied).
    pub width: u32,
    /// Displayed height in pixels.
    pub height: u32,
}

/// Which frame stands for a wanted time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FrameMode {
    /// The frame shown at that time: largest PTS at or before it; past the end, the last frame.
    Exact,
    /// The nearest keyframe within the tolerance, else exact; two times never share a frame.
    Keyframe {
        /// How far it may lie, in seconds.
        tolerance_s: f64,
    },
}

/// Frames to get. Times are rising seconds from the first displayed frame.
#[derive(Clone, Debug)]
pub struct FrameRequest {
    /// The wanted times.
    pub times_s: Vec<f64>,
    /// Which frame stands for a time.
    pub mode: FrameMode,
    /// One image per budget is made of each frame, scaled once while it is at hand; none: the displayed size.
    pub sizes: Vec<PixelBudget>,
    /// What scales.
    pub scaler: Scaler,
    /// Ends the work with [`FrameError::Cancelled`].
    pub cancel: CancellationToken,
}

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The time that was wanted.
    pub requested_s: f64,
    /// Its time from the first displayed frame.
    pub pts_s: f64,
    /// Its time on the container's clock.
    pub stream_pts_s: f64,
    /// True for a keyframe.
    pub keyframe: bool,
    /// One image per size of the request, in its order; one at the displayed size where it named none.
    pub images: Vec<RgbImage>,
}

/// Frames in the order of the request's times, and what they cost.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameBatch {
    /// The frames.
    pub frames: Vec<Frame>,
    /// Requests, bytes and decoded frames of this call.
    pub io: IoFigures,
    /// Milliseconds spent waiting for bytes.
    pub fetch_ms: f64,
    /// Milliseconds spent decoding and scaling.
    pub decode_ms: f64,
    /// What a reader should know.
    pub warnings: Vec<String>,
}

/// Why frames could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The request's token was cancelled.
    #[error("reading frames was cancelled")]
    Cancelled,
    /// Trying again cannot help: not found, forbidden, broken, no video stream. The text names object, position, cause.
    #[error("{0}")]
    Permanent(String),
    /// A passing fault: connection, timeout, throttling.
    #[error("{0}")]
    Transient(String),
}

/// A video, or still frames in tests.
#[async_trait]
pub trait FrameSource: Send + Sync {
    /// What the loop must know.
    fn facts(&self) -> VideoFacts;

    /// The frames for the wanted times.
    ///
    /// # Errors
    /// See [`FrameError`].
    async fn frames(&self, request: FrameRequest) -> Result<FrameBatch, FrameError>;
}
