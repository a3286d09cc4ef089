//! Vision embeddings by model, frame and size: the most recently used in memory, and behind them a tier that the program
//! may give, on disk for example.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::prefix::ModelId;
use crate::prompt::ImageHash;

/// Keeps embeddings beyond this process. It may forget any of them at any time.
pub trait EmbeddingTier: std::fmt::Debug + Send + Sync {
    /// The bytes that were kept under a key.
    fn get(&self, key: &str) -> Option<Vec<u8>>;

    /// Keeps bytes under a key. A tier that cannot costs time, not answers.
    fn put(&self, key: &str, bytes: &[u8]);
}

/// Vision embeddings of all models of a device.
#[derive(Debug)]
pub(crate) struct VisionCache {
    /// With the time of the last use.
    entries: HashMap<(ModelId, ImageHash), (u64, Tensor)>,
    clock: u64,
    bytes: usize,
    budget: usize,
    tier: Option<Arc<dyn EmbeddingTier>>,
}

/// What an image's embeddings are asked for by.
#[derive(Clone, Copy)]
pub(crate) struct VisionKey<'a> {
    pub(crate) model: ModelId,
    /// Revision and type of the weights, for the tier.
    pub(crate) weights: &'a str,
    /// Of the pixels and their size.
    pub(crate) image: ImageHash,
}

impl VisionKey<'_> {
    /// Its name in the tier.
    fn name(&self) -> String {
        format!("vision/{}/{}", self.weights, blake3::Hash::from_bytes(self.image).to_hex())
    }
}

impl VisionCache {
    pub(crate) fn new(budget: usize, tier: Option<Arc<dyn EmbeddingTier>>) -> Self {
        Self { entries: HashMap::new(), clock: 0, bytes: 0, budget, tier }
    }

    /// An image's embeddings of this shape, `[tokens, width]`, from memory or else from the tier.
    pub(crate) fn get(
        &mut self,
        key: &VisionKey<'_>,
        shape: (usize, usize),
        device: &Device,
    ) -> Option<Tensor> {
        self.clock += 1;
        if let Some((used, embeds)) = self.entries.get_mut(&(key.model, key.image)) {
            *used = self.clock;
            return Some(embeds.clone());
        }
        let kept = self.tier.as_ref()?.get(&key.name())?;
        let embeds = from_bytes(&kept, shape, device)?;
        self.keep(key, embeds.clone());
        Some(embeds)
    }

    /// Keeps an image's embeddings in memory and in the tier.
    pub(crate) fn put(&mut self, key: &VisionKey<'_>, embeds: Tensor) {
        if let Some(tier) = &self.tier
            && let Some(bytes) = to_bytes(&embeds)
        {
            tier.put(&key.name(), &bytes);
        }
        self.keep(key, embeds);
    }

    fn keep(&mut self, key: &VisionKey<'_>, embeds: Tensor) {
        if tensor_bytes(&embeds) > self.budget {
            return;
        }
        self.clock += 1;
        self.bytes += tensor_bytes(&embeds);
        if let Some((_, old)) = self.entries.insert((key.model, key.image), (self.clock, embeds)) {
            self.bytes -= tensor_bytes(&old);
        }
        while self.bytes > self.budget
            && let Some(oldest) = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)
            && let Some((_, old)) = self.entries.remove(&oldest)
        {
            self.bytes -= tensor_bytes(&old);
        }
    }

    /// Forgets what memory holds of a model.
    pub(crate) fn clear(&mut self, model: ModelId) {
        self.entries.retain(|(of, _), _| *of != model);
        self.bytes = self.entries.values().map(|(_, embeds)| tensor_bytes(embeds)).sum();
    }
}

fn tensor_bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

/// f32, little endian, row by row; none where the device fails.
fn to_bytes(embeds: &Tensor) -> Option<Vec<u8>> {
    let values: Vec<f32> = embeds.to_dtype(DType::F32).ok()?.flatten_all().ok()?.to_vec1().ok()?;
    Some(values.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// None where the bytes are no such matrix: then it is made again.
fn from_bytes(bytes: &[u8], shape: (usize, usize), device: &Device) -> Option<Tensor> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() || words.len() != shape.0 * shape.1 {
        return None;
    }
    let values: Vec<f32> = words.iter().copied().map(f32::from_le_bytes).collect();
    let numbers = values.iter().all(|value| value.is_finite());
    numbers.then(|| Tensor::from_vec(values, shape, device).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(image: u8) -> VisionKey<'static> {
        VisionKey { model: 1, weights: "abc", image: [image; 32] }
    }

    fn embeds(value: f32) -> Tensor {
        Tensor::full(value, (2, 8), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_least_recently_used_leave_first() {
        // Room for two of 64 bytes.
        let mut cache = VisionCache::new(150, None);
        cache.put(&key(1), embeds(1.0));
        cache.put(&key(2), embeds(2.0));
        assert!(cache.get(&key(1), (2, 8), &Device::Cpu).is_some());
        cache.put(&key(3), embeds(3.0));
        assert!(cache.get(&key(2), (2, 8), &Device::Cpu).is_none());
        assert!(cache.get(&key(1), (2, 8), &Device::Cpu).is_some());
        let other = VisionKey { model: 2, ..key(1) };
        assert!(cache.get(&other, (2, 8), &Device::Cpu).is_none(), "another model's");
        cache.clear(1);
        assert_eq!((cache.entries.len(), cache.bytes), (0, 0));
    }

    #[test]
    fn embeddings_are_read_back_bit_for_bit_and_others_are_refused() {
        let tensor = Tensor::new(&[[1.5_f32, -0.0], [f32::MIN_POSITIVE, 3.0e38]], &Device::Cpu).unwrap();
        let bytes = to_bytes(&tensor).unwrap();
        let back = from_bytes(&bytes, (2, 2), &Device::Cpu).unwrap();
        let bits = |t: &Tensor| -> Vec<u32> {
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        assert_eq!(bits(&back), bits(&tensor));
        assert!(from_bytes(&bytes, (3, 2), &Device::Cpu).is_none());
        assert!(from_bytes(&bytes[..15], (2, 2), &Device::Cpu).is_none());
        assert!(from_bytes(&[], (2, 2), &Device::Cpu).is_none());
        assert!(from_bytes(&f32::NAN.to_le_bytes(), (1, 1), &Device::Cpu).is_none());
    }
}
