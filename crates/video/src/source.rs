//! One version of an object: its size and ETag, and ranges of it.
//!
//! The probe is a ranged GET for every store: presigned URLs refuse HEAD, and the first bytes are wanted anyway.
//! A range that comes back with another ETag or size belongs to another version and is an error.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta};
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    BLOCK_BYTES, BlockCache, ObjectKey, OpenOptions, VideoError, VideoObject, fetch::InFlight, meter::Call,
    source_error::store_error,
};

/// An opened object.
pub(crate) struct Source {
    object: VideoObject,
    uri: String,
    key: ObjectKey,
    size: u64,
    etag: Option<String>,
    modified_ms: i64,
    timeout: Duration,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) in_flight: InFlight,
    pub(crate) requests: Semaphore,
    pub(crate) runtime: Handle,
}

impl Source {
    /// Bytes of the first request: most headers, and the first keyframe, lie in there.
    pub(crate) const PROBE_BYTES: u64 = 256 << 10;

    /// Asks for the first bytes and keeps them in the cache.
    pub(crate) async fn open(
        object: VideoObject,
        options: &OpenOptions,
        call: &Call,
        first_bytes: u64,
    ) -> Result<Self, VideoError> {
        let uri = object.uri.redacted();
        let (meta, bytes) = Transfer { object: &object, uri: &uri, timeout: options.timeout, call }
            .get(0..first_bytes)
            .await?;
        if meta.size == 0 {
            return Err(VideoError::Empty { uri });
        }
        let modified_ms = meta.last_modified.timestamp_millis();
        // Without an ETag the date of the last change must tell versions apart, and the query, which messages and
        // keys leave out, may name the object.
        let version =
            meta.e_tag.clone().unwrap_or_else(|| format!("@{modified_ms}-{:x}", hash(object.uri.expose())));
        let source = Self {
            key: ObjectKey::new(&uri, Some(&version), meta.size),
            uri,
            object,
            size: meta.size,
            etag: meta.e_tag,
            modified_ms,
            timeout: options.timeout,
            cache: Arc::clone(&options.cache),
            in_flight: InFlight::default(),
            requests: Semaphore::new(options.requests.max(1)),
            runtime: Handle::current(),
        };
        source.keep(0, &bytes);
        Ok(source)
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    pub(crate) fn key(&self) -> &ObjectKey {
        &self.key
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    pub(crate) fn modified_ms(&self) -> i64 {
        self.modified_ms
    }

    /// One request.
    pub(crate) async fn get(&self, range: Range<u64>, call: &Call) -> Result<Bytes, VideoError> {
        let at = range.start;
        let (meta, bytes) =
            Transfer { object: &self.object, uri: &self.uri, timeout: self.timeout, call }.get(range).await?;
        let other_tag = matches!((&meta.e_tag, &self.etag), (Some(now), Some(then)) if now != then);
        if other_tag || meta.size != self.size {
            return Err(VideoError::Changed { uri: self.uri.clone(), at });
        }
        Ok(bytes)
    }

    /// Puts whole blocks of `bytes`, which start at `at` (a multiple of the block size), into the cache.
    fn keep(&self, at: u64, bytes: &Bytes) {
        for (number, block) in blocks_of(at, bytes, self.size) {
            self.cache.insert(&self.key, number, block);
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("uri", &self.uri).field("size", &self.size).finish_non_exhaustive()
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Cuts bytes that start at a block's start into blocks with memory of their own (a slice would keep the whole
/// response alive). A cut-off last block is left out unless the object ends there.
pub(crate) fn blocks_of(at: u64, bytes: &Bytes, size: u64) -> impl Iterator<Item = (u64, Bytes)> {
    let first = at / BLOCK_BYTES;
    let ends = at + bytes.len() as u64 == size;
    bytes
        .chunks(BLOCK_BYTES as usize)
        .enumerate()
        .filter(move |(_, chunk)| chunk.len() == BLOCK_BYTES as usize || ends)
        .map(move |(index, chunk)| (first + index as u64, Bytes::copy_from_slice(chunk)))
}

struct Transfer<'a> {
    object: &'a VideoObject,
    uri: &'a str,
    timeout: Duration,
    call: &'a Call,
}

impl Transfer<'_> {
    async fn get(&self, range: Range<u64>) -> Result<(ObjectMeta, Bytes), VideoError> {
        let cancelled = || VideoError::Cancelled { uri: self.uri.to_owned() };
        if self.call.cancel.is_cancelled() {
            return Err(cancelled());
        }
        self.call.request();
        let _running = self.call.fetching.start();
        tokio::select! {
            biased;
            () = self.call.cancel.cancelled() => Err(cancelled()),
            result = self.transfer(&range) => result,
        }
    }

    async fn transfer(&self, range: &Range<u64>) -> Result<(ObjectMeta, Bytes), VideoError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let answer = self
            .in_time(range.start, self.object.store.get_opts(&self.object.path, options))
            .await?
            .map_err(|error| store_error(self.uri, range, &error))?;
        let (meta, expected) = (answer.meta.clone(), answer.range.clone());
        let bytes = self.body(range, answer).await?;
        self.call.received(bytes.len());
        // A cut connection must never look like the end of the object.
        if bytes.len() as u64 != expected.end - expected.start {
            return Err(VideoError::Store {
                uri: self.uri.to_owned(),
                at: range.start + bytes.len() as u64,
                length: expected.end - expected.start - bytes.len() as u64,
                cause: "the connection ended early".to_owned(),
            });
        }
        Ok((meta, bytes))
    }

    async fn body(&self, range: &Range<u64>, answer: GetResult) -> Result<Bytes, VideoError> {
        let failed = |error: &object_store::Error| store_error(self.uri, range, error);
        if matches!(answer.payload, GetResultPayload::File(..)) {
            return self.in_time(range.start, answer.bytes()).await?.map_err(|error| failed(&error));
        }
        let mut bytes = BytesMut::with_capacity((answer.range.end - answer.range.start) as usize);
        let mut stream = answer.into_stream();
        while let Some(chunk) = self.in_time(range.start + bytes.len() as u64, stream.next()).await? {
            bytes.extend_from_slice(&chunk.map_err(|error| failed(&error))?);
        }
        Ok(bytes.freeze())
    }

    async fn in_time<T>(&self, at: u64, future: impl Future<Output = T>) -> Result<T, VideoError> {
        tokio::time::timeout(self.timeout, future).await.map_err(|_| VideoError::Timeout {
            uri: self.uri.to_owned(),
            at,
            seconds: self.timeout.as_secs(),
        })
    }
}
