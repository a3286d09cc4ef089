//! Vision embeddings on disk: a folder of the home's caches.

use std::sync::Arc;

use metrics::counter;
use spectemp_model::EmbeddingTier;
use spectemp_store::DiskCache;

use crate::context::Context;

/// Of the setting `cache_bytes`, the part that vision embeddings may take.
const PART: u64 = 4;

#[derive(Debug)]
struct DiskEmbeddings {
    cache: DiskCache,
}

impl EmbeddingTier for DiskEmbeddings {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let bytes = self.cache.get(key);
        // Asked only for what is not in memory.
        match bytes {
            Some(_) => counter!("spectemp_cache_hits_total", "cache" => "vision_disk").increment(1),
            None => counter!("spectemp_cache_misses_total", "cache" => "vision_disk").increment(1),
        }
        bytes.map(Into::into)
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        // A full disk costs time, not answers.
        if let Err(error) = self.cache.put(key, bytes) {
            tracing::debug!(error = %error, "vision embeddings cannot be kept on disk");
        }
    }
}

/// The cache `cache/vision` of the home; none where it cannot be opened or may hold nothing.
pub(crate) fn tier(context: &Context) -> anyhow::Result<Option<Arc<dyn EmbeddingTier>>> {
    let bytes = context.config.number("cache_bytes", None, 0)? / PART;
    if bytes == 0 {
        return Ok(None);
    }
    let dir = context.home_dir()?.join("cache").join("vision");
    match DiskCache::open(&dir, bytes) {
        Ok(cache) => Ok(Some(Arc::new(DiskEmbeddings { cache }))),
        Err(error) => {
            tracing::warn!(folder = %dir.display(), error = %error, "vision embeddings are not kept on disk");
            Ok(None)
        }
    }
}
