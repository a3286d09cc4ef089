//! What earlier calls left behind and later ones can use: the KV of kept sequences, found by the content of their tokens,
//! and vision embeddings, found by pixels. Both hold the most recently used up to a number of bytes.

use std::collections::HashMap;

use candle_core::Tensor;

use crate::ModelError;
use crate::kv::Cache;
use crate::prompt::ImageHash;

/// Kept sequences, the most recently used last.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    kept: Vec<Kept>,
    budget: usize,
}

#[derive(Debug)]
struct Kept {
    /// One key per cached token.
    keys: Vec<u64>,
    cache: Cache,
}

impl PrefixCache {
    pub(crate) fn new(budget: usize) -> Self {
        Self { kept: Vec::new(), budget }
    }

    /// A cache with the longest kept prefix of these keys that is shorter than they are: the last token is always
    /// computed, for its logits. A sequence that goes on is taken out and continued in place; one that branches off is
    /// copied, because its other branch may be asked for again.
    pub(crate) fn take(&mut self, keys: &[u64]) -> Result<Option<Cache>, ModelError> {
        let most = keys.len().saturating_sub(1);
        let shared = |kept: &Kept| kept.keys.iter().zip(&keys[..most]).take_while(|(a, b)| a == b).count();
        let best = self.kept.iter().map(shared).enumerate().max_by_key(|&(_, length)| length);
        let Some((number, length)) = best.filter(|&(_, length)| length > 0) else { return Ok(None) };
        let kept = self.kept.remove(number);
        if length == kept.keys.len() {
            return Ok(Some(kept.cache));
        }
        let copy = kept.cache.prefix(length)?;
        // Both were used just now.
        self.kept.push(kept);
        Ok(Some(copy))
    }

    /// Keeps a sequence; `keys` name its tokens. The newest is kept even where it alone is over the budget: its memory
    /// was needed a moment ago anyway.
    pub(crate) fn put(&mut self, mut keys: Vec<u64>, mut cache: Cache) {
        if self.budget == 0 {
            return;
        }
        cache.shrink();
        keys.truncate(cache.len());
        // What the new one begins with is worth nothing beside it.
        self.kept.retain(|kept| !keys.starts_with(&kept.keys));
        self.kept.push(Kept { keys, cache });
        let mut bytes: usize = self.kept.iter().map(|kept| kept.cache.bytes()).sum();
        while bytes > self.budget && self.kept.len() > 1 {
            bytes -= self.kept.remove(0).cache.bytes();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }
}

/// Vision embeddings by image.
#[derive(Debug)]
pub(crate) struct VisionCache {
    /// With the time of the last use.
    entries: HashMap<ImageHash, (u64, Tensor)>,
    clock: u64,
    bytes: usize,
    budget: usize,
}

impl VisionCache {
    pub(crate) fn new(budget: usize) -> Self {
        Self { entries: HashMap::new(), clock: 0, bytes: 0, budget }
    }

    /// An image's embeddings, `[tokens, hidden]`.
    pub(crate) fn get(&mut self, hash: &ImageHash) -> Option<Tensor> {
        self.clock += 1;
        let (used, embeds) = self.entries.get_mut(hash)?;
        *used = self.clock;
        Some(embeds.clone())
    }

    pub(crate) fn put(&mut self, hash: ImageHash, embeds: Tensor) {
        if tensor_bytes(&embeds) > self.budget {
            return;
        }
        self.clock += 1;
        self.bytes += tensor_bytes(&embeds);
        if let Some((_, old)) = self.entries.insert(hash, (self.clock, embeds)) {
            self.bytes -= tensor_bytes(&old);
        }
        while self.bytes > self.budget
            && let Some(oldest) =
                self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(hash, _)| *hash)
            && let Some((_, old)) = self.entries.remove(&oldest)
        {
            self.bytes -= tensor_bytes(&old);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

fn tensor_bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}
