//! A video: opened once, shared by many sessions.

use std::sync::Arc;

use async_trait::async_trait;
use spectemp_engine::{FrameBatch, FrameError, FrameRequest, FrameSource, VideoFacts};
use spectemp_types::IoFigures;

use crate::{OpenOptions, Probe, VideoError, VideoObject, VideoRecord, inner::Inner, open::open, record};

/// A video, or rather the way to its frames by byte ranges. Cheap to share; calls may run side by side.
pub struct Video {
    inner: Arc<Inner>,
}

impl Video {
    /// Opens an object. With the record of an earlier open of the same version no index bytes are read again. Must be
    /// called within a tokio runtime, which later calls use too.
    ///
    /// # Errors
    /// See [`VideoError`].
    pub async fn open(
        object: VideoObject,
        options: OpenOptions,
        known: Option<VideoRecord>,
    ) -> Result<Self, VideoError> {
        Ok(Self { inner: Box::pin(open(object, options, known)).await? })
    }

    /// What the video says of itself.
    pub fn probe(&self) -> &Probe {
        &self.inner.probe
    }

    /// What to keep for the next open. It grows where an index is bisected: ask again after reading frames.
    pub fn record(&self) -> VideoRecord {
        let inner = &self.inner;
        VideoRecord {
            version: VideoRecord::VERSION,
            etag: inner.source.etag().map(str::to_owned),
            modified_ms: inner.source.modified_ms(),
            size: inner.source.size(),
            probe: inner.probe.clone(),
            layout: inner.layout,
            clock: inner.clock,
            index: inner.index().clone(),
            header: record::pack(&inner.demux.header, inner.options.record_bytes),
        }
    }

    /// What was read and decoded since the open, the open included.
    pub fn io(&self) -> IoFigures {
        self.inner.total()
    }

    /// The frames for the wanted times, as [`FrameSource::frames`], with this crate's errors.
    ///
    /// # Errors
    /// See [`VideoError`].
    pub async fn read(&self, request: FrameRequest) -> Result<FrameBatch, VideoError> {
        Box::pin(self.inner.frames(request)).await
    }
}

impl std::fmt::Debug for Video {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Video").field("uri", &self.inner.uri()).finish_non_exhaustive()
    }
}

#[async_trait]
impl FrameSource for Video {
    fn facts(&self) -> VideoFacts {
        let probe = self.probe();
        VideoFacts { duration_s: probe.duration_s, width: probe.width, height: probe.height }
    }

    async fn frames(&self, request: FrameRequest) -> Result<FrameBatch, FrameError> {
        Ok(self.read(request).await?)
    }
}
