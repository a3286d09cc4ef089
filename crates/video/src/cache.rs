//! Blocks of objects in memory, least recently used out first, with an optional second tier behind it.
//!
//! A block is [`BLOCK_BYTES`] of one object version (the last one of an object is shorter). The key holds URI, ETag
//! and size, so a changed object is another object. Blocks are small, because in keyframe mode only the keyframes'
//! bytes are wanted; requests are as long as the gaps between known blocks allow (see `fetch`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

/// Bytes of a block.
pub const BLOCK_BYTES: u64 = 16 << 10;

/// One version of an object: blocks and frames of another one are never mixed up with its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// A key of what tells versions apart. The URI is the redacted one.
    pub fn new(uri: &str, etag: Option<&str>, size: u64) -> Self {
        Self(format!("{uri}#{}#{size}", etag.unwrap_or("-")).into())
    }

    /// The key as text, for a tier that stores it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A slower and larger place for blocks, a folder on disk for example. It may forget anything at any time.
/// It is called from threads that may block.
pub trait BlockTier: Send + Sync + std::fmt::Debug {
    /// The block with this number, if it is there.
    fn get(&self, object: &ObjectKey, block: u64) -> Option<Bytes>;
    /// Keeps a block. Failures are the tier's own affair.
    fn put(&self, object: &ObjectKey, block: u64, bytes: Bytes);
}

/// The cache.
#[derive(Debug)]
pub struct BlockCache {
    limit: usize,
    tier: Option<Arc<dyn BlockTier>>,
    inner: Mutex<Lru>,
}

#[derive(Debug, Default)]
struct Lru {
    bytes: usize,
    clock: u64,
    blocks: HashMap<(ObjectKey, u64), (u64, Bytes)>,
    by_age: BTreeMap<u64, (ObjectKey, u64)>,
}

impl BlockCache {
    /// Room of the default cache.
    pub const DEFAULT_BYTES: usize = 32 << 20;

    /// A cache for at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, tier: None, inner: Mutex::default() }
    }

    /// A cache for at most `limit` bytes in memory with a tier behind it.
    pub fn with_tier(limit: usize, tier: Arc<dyn BlockTier>) -> Self {
        Self { limit, tier: Some(tier), inner: Mutex::default() }
    }

    /// Bytes held in memory now.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// A block from memory, which makes it the youngest.
    pub(crate) fn get(&self, object: &ObjectKey, block: u64) -> Option<Bytes> {
        let mut lru = self.lock();
        let lru = &mut *lru;
        let key = (object.clone(), block);
        let (age, bytes) = lru.blocks.get_mut(&key)?;
        lru.clock += 1;
        lru.by_age.remove(age);
        *age = lru.clock;
        lru.by_age.insert(lru.clock, key);
        Some(bytes.clone())
    }

    /// A block from the tier, which then is in memory too. May block.
    pub(crate) fn get_from_tier(&self, object: &ObjectKey, block: u64) -> Option<Bytes> {
        let bytes = self.tier.as_ref()?.get(object, block)?;
        self.insert(object, block, bytes.clone());
        Some(bytes)
    }

    /// True where a tier stands behind the memory.
    pub(crate) fn has_tier(&self) -> bool {
        self.tier.is_some()
    }

    /// Keeps a block in memory.
    pub(crate) fn insert(&self, object: &ObjectKey, block: u64, bytes: Bytes) {
        if bytes.len() > self.limit {
            return;
        }
        let mut lru = self.lock();
        lru.clock += 1;
        let (clock, key) = (lru.clock, (object.clone(), block));
        lru.bytes += bytes.len();
        if let Some((age, old)) = lru.blocks.insert(key.clone(), (clock, bytes)) {
            lru.bytes -= old.len();
            lru.by_age.remove(&age);
        }
        lru.by_age.insert(clock, key);
        while lru.bytes > self.limit {
            let Some((_, oldest)) = lru.by_age.pop_first() else { break };
            if let Some((_, old)) = lru.blocks.remove(&oldest) {
                lru.bytes -= old.len();
            }
        }
    }

    /// Hands a block that came from the store to the tier. May block.
    pub(crate) fn insert_in_tier(&self, object: &ObjectKey, block: u64, bytes: Bytes) {
        if let Some(tier) = &self.tier {
            tier.put(object, block, bytes);
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
    fn the_oldest_block_leaves_first() {
        let (cache, key) = (BlockCache::new(30), ObjectKey::new("a", None, 1));
        for block in 0..3 {
            cache.insert(&key, block, Bytes::from(vec![0; 10]));
        }
        assert!(cache.get(&key, 0).is_some());
        cache.insert(&key, 3, Bytes::from(vec![0; 10]));
        assert!(cache.get(&key, 1).is_none());
        assert!(cache.get(&key, 0).is_some() && cache.get(&key, 2).is_some() && cache.get(&key, 3).is_some());
        assert_eq!(cache.bytes(), 30);
    }

    #[test]
    fn a_block_larger_than_the_cache_is_not_kept_and_a_replaced_one_is_counted_once() {
        let (cache, key) = (BlockCache::new(30), ObjectKey::new("a", None, 1));
        cache.insert(&key, 0, Bytes::from(vec![0; 31]));
        assert_eq!(cache.bytes(), 0);
        cache.insert(&key, 1, Bytes::from(vec![0; 20]));
        cache.insert(&key, 1, Bytes::from(vec![0; 10]));
        assert_eq!(cache.bytes(), 10);
    }

    #[test]
    fn versions_of_an_object_are_kept_apart() {
        let cache = BlockCache::new(30);
        cache.insert(&ObjectKey::new("a", Some("1"), 5), 0, Bytes::from_static(b"x"));
        assert!(cache.get(&ObjectKey::new("a", Some("2"), 5), 0).is_none());
    }
}
