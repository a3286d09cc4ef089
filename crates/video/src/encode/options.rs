//! How a file is encoded.

use ffmpeg_next::{Dictionary, Rational};

use super::EncodeError;

/// How a file is encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodeOptions {
    /// Frames per second.
    pub fps: FrameRate,
    /// Constant rate factor, 0 (lossless) to 51 (worst).
    pub crf: f32,
    /// Effort.
    pub preset: Preset,
    /// Most frames from one keyframe to the next; none: libx264's 250. Scene cuts make keyframes earlier.
    pub gop: Option<u32>,
    /// True: index before the samples (written in a second pass over the file). False: index at the end.
    pub faststart: bool,
    /// Threads of libx264; 0: as many as suit the machine.
    pub threads: usize,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            fps: FrameRate::whole(25),
            crf: 25.0,
            preset: Preset::Veryfast,
            gop: None,
            faststart: true,
            threads: 0,
        }
    }
}

/// `numerator` frames in `denominator` seconds: 30000/1001 for example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRate {
    /// Frames …
    pub numerator: u32,
    /// … in so many seconds.
    pub denominator: u32,
}

impl FrameRate {
    /// A whole number of frames per second.
    pub const fn whole(frames: u32) -> Self {
        Self { numerator: frames, denominator: 1 }
    }

    pub(super) fn rational(self) -> Rational {
        Rational(self.numerator as i32, self.denominator as i32)
    }

    /// Seconds per frame.
    pub(super) fn frame_base(self) -> Rational {
        self.rational().invert()
    }
}

/// libx264's effort, from fastest to best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// No B-frames, one reference.
    Ultrafast,
    /// Little more.
    Superfast,
    /// Usual GOPs with B-frames.
    Veryfast,
    /// Between.
    Faster,
    /// Between.
    Fast,
    /// libx264's own default.
    Medium,
}

impl Preset {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ultrafast => "ultrafast",
            Self::Superfast => "superfast",
            Self::Veryfast => "veryfast",
            Self::Faster => "faster",
            Self::Fast => "fast",
            Self::Medium => "medium",
        }
    }
}

impl EncodeOptions {
    pub(super) fn check(&self) -> Result<(), EncodeError> {
        let FrameRate { numerator, denominator } = self.fps;
        let range = 1..=1_000_000;
        if !range.contains(&numerator) || !range.contains(&denominator) {
            return Err(EncodeError::Rate { numerator, denominator });
        }
        if !(0.0..=51.0).contains(&self.crf) {
            return Err(EncodeError::Crf(self.crf));
        }
        match self.gop {
            Some(gop) if !(1..=100_000).contains(&gop) => Err(EncodeError::Gop(gop)),
            _ => Ok(()),
        }
    }

    pub(super) fn mp4(&self) -> Dictionary<'static> {
        let mut options = Dictionary::new();
        if self.faststart {
            options.set("movflags", "+faststart");
        }
        options
    }
}

pub(super) fn check_size(width: u32, height: u32) -> Result<(), EncodeError> {
    let fits = |side: u32| (16..=8192).contains(&side) && side.is_multiple_of(2);
    if fits(width) && fits(height) { Ok(()) } else { Err(EncodeError::Size { width, height }) }
}
