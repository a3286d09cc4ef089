//! The disk tier behind the cache of byte blocks.

use bytes::Bytes;
use spectemp_store::DiskCache;
use spectemp_video::{BlockTier, ObjectKey};

use crate::figures;

/// Blocks of remote objects in a folder of the home.
#[derive(Clone, Debug)]
pub struct DiskTier {
    cache: DiskCache,
}

impl DiskTier {
    /// A tier over `cache`.
    pub fn new(cache: DiskCache) -> Self {
        Self { cache }
    }
}

impl BlockTier for DiskTier {
    fn get(&self, object: &ObjectKey, block: u64) -> Option<Bytes> {
        let bytes = self.cache.get(&key(object, block));
        figures::cache("disk", bytes.is_some());
        bytes
    }

    fn put(&self, object: &ObjectKey, block: u64, bytes: Bytes) {
        // A full disk costs time, not answers.
        if let Err(error) = self.cache.put(&key(object, block), &bytes) {
            tracing::debug!(error = %error, "a block cannot be kept on disk");
        }
    }
}

fn key(object: &ObjectKey, block: u64) -> String {
    format!("{}#{block}", object.as_str())
}
