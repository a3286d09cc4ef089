//! A video as one job sees it: the images that pass are kept until their round is done, for its thumbnails. So a
//! thumbnail costs no byte and no decoding of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use spectemp_engine::{
    FrameBatch, FrameError, FrameRequest, FrameSource, RgbImage, VideoFacts, resize_bicubic,
};
use spectemp_store::{ObjectKey, Objects};
use spectemp_types::{JobId, Round};
use spectemp_video::encode::png_bytes;

use crate::error::JobError;

/// The longer side of a thumbnail, in pixels.
const THUMBNAIL_SIDE: u32 = 320;

/// So many thumbnails are made and written at once: a write to a bucket is mostly waiting, and the round waits for all.
const AT_ONCE: usize = 8;

/// A frame source that remembers the images of the running round.
pub(crate) struct Tap {
    inner: Arc<dyn FrameSource>,
    images: Mutex<HashMap<u64, RgbImage>>,
}

impl Tap {
    pub(crate) fn new(inner: Arc<dyn FrameSource>) -> Self {
        Self { inner, images: Mutex::default() }
    }

    /// Writes the frames of `round` that the target saw as thumbnails, and forgets all images.
    pub(crate) async fn keep(&self, objects: &Objects, job: JobId, round: &Round) -> Result<(), JobError> {
        let images = std::mem::take(&mut *self.images());
        let shown: Vec<(u32, RgbImage)> = (0..)
            .zip(&round.frames)
            .filter_map(|(place, frame)| Some((place, images.get(&frame.pts_s.to_bits())?.clone())))
            .collect();
        let written = stream::iter(shown).map(|(frame, image)| async move {
            let encoded = tokio::task::spawn_blocking(move || encode(&image)).await;
            let png =
                encoded.map_err(|cause| JobError::Permanent(format!("thumbnail failed: {cause}")))??;
            Ok(objects.put(&ObjectKey::Thumbnail { job, round: round.no, frame }, png).await?)
        });
        written.buffer_unordered(AT_ONCE).try_collect().await
    }

    fn images(&self) -> MutexGuard<'_, HashMap<u64, RgbImage>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl FrameSource for Tap {
    fn facts(&self) -> VideoFacts {
        self.inner.facts()
    }

    async fn frames(&self, request: FrameRequest) -> Result<FrameBatch, FrameError> {
        let batch = self.inner.frames(request).await?;
        let mut images = self.images();
        for frame in &batch.frames {
            if let Some(image) = frame.images.iter().max_by_key(|image| image.data.len()) {
                let kept = images.entry(frame.pts_s.to_bits()).or_insert_with(|| image.clone());
                if kept.data.len() < image.data.len() {
                    *kept = image.clone();
                }
            }
        }
        Ok(batch)
    }
}

fn encode(image: &RgbImage) -> Result<Bytes, JobError> {
    let fail = |cause: String| JobError::Permanent(format!("thumbnail failed: {cause}"));
    let small = shrink(image).map_err(fail)?;
    let png = png_bytes(small.as_ref().unwrap_or(image)).map_err(|cause| fail(cause.to_string()))?;
    Ok(png.into())
}

/// The image with [`THUMBNAIL_SIDE`] as its longer side; none where it is small enough.
fn shrink(image: &RgbImage) -> Result<Option<RgbImage>, String> {
    let longer = image.width.max(image.height);
    if longer <= THUMBNAIL_SIDE {
        return Ok(None);
    }
    let side =
        |pixels: u32| (u64::from(pixels) * u64::from(THUMBNAIL_SIDE) / u64::from(longer)).max(1) as u32;
    resize_bicubic(image, side(image.width), side(image.height)).map(Some).map_err(|cause| cause.to_string())
}
