//! From byte ranges of an object to timed RGB frames, and back to encoded files.

pub mod encode;

mod boxes;
mod cache;
mod composition;
mod convert;
mod decode;
mod demux;
mod ebml;
mod error;
mod fetch;
mod ffi;
mod find;
mod first;
mod frame_cache;
mod frames;
mod gate;
mod index;
mod inner;
mod linear;
mod meter;
mod object;
mod open;
mod orient;
mod plan;
mod probe;
mod probing;
mod reader;
#[cfg(test)]
mod reader_tests;
mod record;
mod restart;
mod run;
mod size;
mod source;
mod source_error;
mod support;
mod tail;
mod video;

pub use cache::{BLOCK_BYTES, BlockCache, BlockTier, ObjectKey};
pub use error::VideoError;
pub use frame_cache::FrameCache;
pub use index::{Keyframe, KeyframeIndex};
pub use inner::{Clock, Layout};
pub use object::{OpenOptions, VideoObject};
pub use probe::{Colour, IndexKind, Probe, Ratio};
pub use record::{HeaderPiece, VideoRecord};
pub use size::even_budget;
pub use support::{FfmpegSupport, ffmpeg_support};
pub use video::Video;
