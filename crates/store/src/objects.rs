//! Objects of the home: traces and evidence thumbnails. Keys are an enum; only this file spells paths.

use std::{fmt, path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path, prefix::PrefixStore};
use spectemp_types::{JobId, Trace, VideoUri};

use crate::{Locations, StoreError, location};

/// Which object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKey {
    /// The trace of an answer, JSON. The epoch of the claim that wrote it keeps a late writer's trace apart.
    Trace {
        /// The job.
        job: JobId,
        /// The claim.
        epoch: u32,
    },
    /// A frame that the target saw, PNG. A resumed round sees the same frames, so writing it again is harmless.
    Thumbnail {
        /// The job.
        job: JobId,
        /// Number of the round.
        round: u32,
        /// The frame's place in [`spectemp_types::Round::frames`].
        frame: u32,
    },
}

impl ObjectKey {
    /// The job that it belongs to.
    pub fn job(&self) -> JobId {
        match self {
            Self::Trace { job, .. } | Self::Thumbnail { job, .. } => *job,
        }
    }

    fn path(&self) -> Path {
        Path::from(self.to_string())
    }

    /// The key at `path`; `None` for what this program did not write.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let (kind, job, rest) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let key = match kind {
            "traces" => Self::Trace { job, epoch: rest.strip_suffix(".json")?.parse().ok()? },
            "thumbnails" => {
                let (round, frame) = rest.strip_suffix(".png")?.split_once('-')?;
                Self::Thumbnail { job, round: round.parse().ok()?, frame: frame.parse().ok()? }
            }
            _ => return None,
        };
        (key.to_string() == path).then_some(key)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace { job, epoch } => write!(f, "traces/{job}/{epoch}.json"),
            Self::Thumbnail { job, round, frame } => write!(f, "thumbnails/{job}/{round:03}-{frame:03}.png"),
        }
    }
}

/// The objects of a home. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// The same, every write synced to the disk.
    durable: Arc<dyn ObjectStore>,
}

impl Objects {
    /// The objects under the local folder `dir`, which must exist.
    pub(crate) fn local(dir: &FilePath) -> Result<Self, StoreError> {
        let store = LocalFileSystem::new_with_prefix(dir).map_err(StoreError::object(dir.display()))?;
        let store = store.with_automatic_cleanup(true);
        Ok(Self { durable: Arc::new(store.clone().with_fsync(true)), store: Arc::new(store) })
    }

    /// The objects under `prefix`, a folder (made if it is missing) or a part of a bucket: where a server keeps its
    /// traces and thumbnails. The prefix is the operator's own, so the list of what users may open is not asked; it
    /// need not and should not name it.
    ///
    /// # Errors
    /// [`StoreError::Location`], [`StoreError::Io`].
    pub fn at(prefix: &VideoUri, locations: &Locations) -> Result<Self, StoreError> {
        if let Some(folder) = location::local_path(prefix)? {
            std::fs::create_dir_all(&folder).map_err(StoreError::io("make folder", &folder))?;
            return Self::local(&folder);
        }
        let place = locations.resolve_own_folder(prefix)?;
        Ok(Self::over(Arc::new(PrefixStore::new(place.store, place.path))))
    }

    /// The objects in any store.
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { durable: Arc::clone(&store), store }
    }

    /// The store itself, for housekeeping.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Writes an object, whole or not at all. A trace is on the disk when this returns, because an answer's row will
    /// point at it; a thumbnail may be lost in a power cut.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Object`].
    pub async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let store = match key {
            ObjectKey::Trace { .. } => &self.durable,
            ObjectKey::Thumbnail { .. } => &self.store,
        };
        store.put(&key.path(), bytes.into()).await.map_err(StoreError::object(key))?;
        Ok(())
    }

    /// Reads an object; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::Object`].
    pub async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, StoreError> {
        let got = match self.store.get(&key.path()).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            got => got.map_err(StoreError::object(key))?,
        };
        got.bytes().await.map(Some).map_err(StoreError::object(key))
    }

    /// Deletes all objects of `job`; how many there were.
    ///
    /// # Errors
    /// [`StoreError::Object`]; some may be deleted then.
    pub(crate) async fn delete_of(&self, job: JobId) -> Result<u64, StoreError> {
        let mut deleted = 0;
        for kind in ["traces", "thumbnails"] {
            let prefix = Path::from(format!("{kind}/{job}"));
            let mut found = self.store.list(Some(&prefix));
            while let Some(object) = found.try_next().await.map_err(StoreError::object(&prefix))? {
                self.store.delete(&object.location).await.map_err(StoreError::object(&object.location))?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Writes the trace that the claim `epoch` of its job came to.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Object`].
    pub async fn put_trace(&self, epoch: u32, trace: &Trace) -> Result<ObjectKey, StoreError> {
        let key = ObjectKey::Trace { job: trace.job_id, epoch };
        let text = serde_json::to_vec(trace).map_err(StoreError::corrupt(key))?;
        self.put(&key, text.into()).await?;
        Ok(key)
    }

    /// The trace that the claim `epoch` of `job` came to; an answer's row knows the epoch.
    ///
    /// # Errors
    /// [`StoreError::Object`], [`StoreError::Corrupt`].
    pub async fn trace(&self, job: JobId, epoch: u32) -> Result<Option<Trace>, StoreError> {
        let key = ObjectKey::Trace { job, epoch };
        let Some(bytes) = self.get(&key).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(StoreError::corrupt(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_from_their_paths() {
        let job = JobId::new();
        for key in [ObjectKey::Trace { job, epoch: 3 }, ObjectKey::Thumbnail { job, round: 2, frame: 1000 }] {
            assert_eq!(ObjectKey::parse(&key.to_string()), Some(key));
        }
        for path in [
            "traces/x/1.json",
            "traces",
            "other/a/b",
            &format!("traces/{job}/+1.json"),
            &format!("thumbnails/{job}/1.png"),
        ] {
            assert_eq!(ObjectKey::parse(path), None, "{path}");
        }
    }
}
