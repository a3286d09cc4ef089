//! What a video says of itself: `spectemp probe --json` prints it as it is.

use serde::{Deserialize, Serialize};

/// Container, codec, geometry, colour and clock of the best video stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// FFmpeg's name of the demuxer, `mov,mp4,m4a,3gp,3g2,mj2` for example.
    pub container: String,
    /// FFmpeg's name of the codec, `h264` for example.
    pub codec: String,
    /// FFmpeg's name of the decoded pixel format, `yuv420p10le` for example.
    pub pixel_format: String,
    /// Bits per sample: 8, 10, 12.
    pub bits: u32,
    /// Coded width in pixels, after cropping.
    pub coded_width: u32,
    /// Coded height in pixels.
    pub coded_height: u32,
    /// Displayed width: sample aspect ratio and rotation applied.
    pub width: u32,
    /// Displayed height.
    pub height: u32,
    /// Width of a sample over its height.
    pub sample_aspect: Ratio,
    /// Degrees clockwise by which the picture is turned for display: 0, 90, 180, 270.
    pub rotation: u32,
    /// The picture is mirrored left to right before it is turned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mirrored: bool,
    /// Declared colour.
    pub colour: Colour,
    /// Mean frames per second, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// Seconds from the first displayed frame to the end of the last one.
    pub duration_s: f64,
    /// Time of the first displayed frame on the container's clock, seconds: what `pts_s` 0 is there.
    pub start_s: f64,
    /// Seconds per tick of the container's clock.
    pub time_base: Ratio,
    /// Frames, where the container tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<u64>,
    /// What finds a time in the object.
    pub index: IndexKind,
    /// Keyframes in the index.
    pub keyframes: u64,
    /// Bytes of the object.
    pub object_bytes: u64,
    /// ETag of the object, where the store gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// A fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ratio {
    /// Above the line.
    pub num: i64,
    /// Below the line.
    pub den: i64,
}

impl Ratio {
    /// As a number; 0 where the denominator is.
    pub fn value(self) -> f64 {
        if self.den == 0 { 0.0 } else { self.num as f64 / self.den as f64 }
    }
}

/// Colour as the stream declares it, in FFmpeg's words (`bt709`, `unknown` …).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Colour {
    /// Matrix from YUV to RGB.
    pub matrix: String,
    /// `tv` (limited), `pc` (full) or `unknown` (taken as limited).
    pub range: String,
    /// Primaries.
    pub primaries: String,
    /// Transfer.
    pub transfer: String,
}

/// How a time is found in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// The container's own index (moov, cues, idx1, sidx …).
    Container,
    /// None: byte ranges are bisected by timestamp, and what was found is kept.
    Bisected,
    /// None and no timestamps either: the object was, or must be, scanned.
    Scanned,
}
