//! From byte ranges of an object to timed RGB frames, and back to encoded files.

pub mod encode;

mod cache;
mod error;
mod frame_cache;
mod index;
mod object;
mod probe;
mod record;
mod size;
mod support;
mod video;

pub use cache::{BLOCK_BYTES, BlockCache, BlockTier, ObjectKey};
pub use error::VideoError;
pub use frame_cache::FrameCache;
pub use index::{Keyframe, KeyframeIndex};
pub use object::{OpenOptions, VideoObject};
pub use probe::{Colour, IndexKind, Probe, Ratio};
pub use record::{HeaderPiece, VideoRecord};
pub use size::even_budget;
pub use support::{FfmpegSupport, ffmpeg_support};
pub use video::Video;
