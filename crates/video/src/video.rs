//! A video: opened once, shared by many sessions.

use async_trait::async_trait;
use spectemp_engine::{FrameBatch, FrameError, FrameRequest, FrameSource, VideoFacts};
use spectemp_types::IoFigures;

use crate::{OpenOptions, Probe, VideoError, VideoObject, VideoRecord};

/// A video, or rather the way to its frames by byte ranges.
#[derive(Debug)]
pub struct Video {
    probe: Probe,
}

impl Video {
    /// Opens an object. With the record of an earlier open of the same version no index bytes are read again.
    ///
    /// # Errors
    /// See [`VideoError`].
    pub async fn open(
        object: VideoObject,
        _options: OpenOptions,
        _known: Option<VideoRecord>,
    ) -> Result<Self, VideoError> {
        Err(VideoError::Resources { uri: object.uri.redacted(), cause: "opening is not written yet".into() })
    }

    /// What the video says of itself.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// What to keep for the next open.
    pub fn record(&self) -> VideoRecord {
        VideoRecord {
            version: VideoRecord::VERSION,
            etag: None,
            modified_ms: 0,
            size: 0,
            probe: self.probe.clone(),
            index: crate::KeyframeIndex::default(),
            header: Vec::new(),
        }
    }

    /// What was read and decoded since the open, the open included.
    pub fn io(&self) -> IoFigures {
        IoFigures::default()
    }
}

#[async_trait]
impl FrameSource for Video {
    fn facts(&self) -> VideoFacts {
        VideoFacts { duration_s: self.probe.duration_s, width: self.probe.width, height: self.probe.height }
    }

    async fn frames(&self, _request: FrameRequest) -> Result<FrameBatch, FrameError> {
        Err(FrameError::Permanent("reading frames is not written yet".into()))
    }
}
