//! What is opened, and how.

use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, path::Path};
use spectemp_types::VideoUri;

use crate::{BlockCache, FrameCache};

/// An object in a store. The store comes from outside, with credentials and allow list settled.
#[derive(Clone, Debug)]
pub struct VideoObject {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Where in the store.
    pub path: Path,
    /// What messages call it.
    pub uri: VideoUri,
}

/// How a video is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Allow reading the whole object where nothing else finds a frame.
    pub allow_scan: bool,
    /// Most time without progress: one request, or one step of FFmpeg.
    pub timeout: Duration,
    /// Blocks of bytes; share one among all videos of a process.
    pub cache: Arc<BlockCache>,
    /// Decoded frames; share one among all videos of a process.
    pub frame_cache: Arc<FrameCache>,
    /// Most GOPs decoded at the same time.
    pub decode_threads: usize,
    /// Most requests in flight.
    pub requests: usize,
    /// Most bytes fetched ahead of the decoders in one call.
    pub window_bytes: usize,
    /// Most bytes of the container's header and index kept in [`crate::VideoRecord`] (compressed).
    pub record_bytes: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            allow_scan: false,
            timeout: Duration::from_secs(30),
            cache: Arc::new(BlockCache::new(BlockCache::DEFAULT_BYTES)),
            frame_cache: Arc::new(FrameCache::new(FrameCache::DEFAULT_BYTES)),
            decode_threads: cores.min(8),
            requests: 16,
            window_bytes: 32 << 20,
            record_bytes: 4 << 20,
        }
    }
}
