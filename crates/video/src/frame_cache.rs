//! Frames that were decoded and scaled already, so that several sessions on one video share them: the second
//! question about the same times reads and decodes nothing.
//!
//! Two tables: which frame (PTS) was found for a wanted time, and the images of a frame.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use spectemp_engine::{PixelBudget, RgbImage};
use spectemp_types::Scaler;

use crate::ObjectKey;

/// One image of one frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ImageKey {
    pub(crate) object: ObjectKey,
    pub(crate) pts: i64,
    pub(crate) size: Option<(u32, u32, u32)>,
    pub(crate) pillow: bool,
}

impl ImageKey {
    /// The key of a frame at a budget's size, or at the displayed size.
    pub(crate) fn new(object: &ObjectKey, pts: i64, size: Option<PixelBudget>, scaler: Scaler) -> Self {
        Self {
            object: object.clone(),
            pts,
            size: size.map(|budget| (budget.min_pixels, budget.max_pixels, budget.multiple)),
            pillow: scaler == Scaler::Pillow,
        }
    }
}

/// The cache.
#[derive(Debug)]
pub struct FrameCache {
    limit: usize,
    inner: Mutex<Lru>,
}

#[derive(Debug, Default)]
struct Lru {
    bytes: usize,
    clock: u64,
    images: HashMap<ImageKey, (u64, RgbImage)>,
    by_age: BTreeMap<u64, ImageKey>,
}

impl FrameCache {
    /// Room of the default cache.
    pub const DEFAULT_BYTES: usize = 32 << 20;

    /// A cache for at most `limit` bytes of pixels.
    pub fn new(limit: usize) -> Self {
        Self { limit, inner: Mutex::default() }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// An image, which becomes the youngest.
    pub(crate) fn get(&self, key: &ImageKey) -> Option<RgbImage> {
        let mut lru = self.lock();
        let lru = &mut *lru;
        let (age, image) = lru.images.get_mut(key)?;
        lru.clock += 1;
        lru.by_age.remove(age);
        *age = lru.clock;
        lru.by_age.insert(lru.clock, key.clone());
        Some(image.clone())
    }

    /// Keeps an image.
    pub(crate) fn insert(&self, key: ImageKey, image: RgbImage) {
        if image.data.len() > self.limit {
            return;
        }
        let mut lru = self.lock();
        lru.clock += 1;
        let clock = lru.clock;
        lru.bytes += image.data.len();
        if let Some((age, old)) = lru.images.insert(key.clone(), (clock, image)) {
            lru.bytes -= old.data.len();
            lru.by_age.remove(&age);
        }
        lru.by_age.insert(clock, key);
        while lru.bytes > self.limit {
            let Some((_, oldest)) = lru.by_age.pop_first() else { break };
            if let Some((_, old)) = lru.images.remove(&oldest) {
                lru.bytes -= old.data.len();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lru> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_apart_by_frame_size_and_scaler_and_stay_within_the_limit() {
        let (cache, object) = (FrameCache::new(24), ObjectKey::new("a", None, 1));
        let image = RgbImage { width: 2, height: 2, data: vec![1; 12].into() };
        let key = |pts, scaler| ImageKey::new(&object, pts, None, scaler);
        cache.insert(key(0, Scaler::Pillow), image.clone());
        assert!(cache.get(&key(0, Scaler::Swscale)).is_none());
        assert!(cache.get(&key(1, Scaler::Pillow)).is_none());
        cache.insert(key(1, Scaler::Pillow), image.clone());
        assert_eq!(cache.get(&key(0, Scaler::Pillow)), Some(image.clone()));
        cache.insert(key(2, Scaler::Pillow), image);
        assert!(cache.get(&key(1, Scaler::Pillow)).is_none());
        assert_eq!(cache.bytes(), 24);
    }
}
