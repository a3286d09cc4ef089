//! Freeing what nothing needs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use chrono::{TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Serialize;

use crate::{Home, Ledger, ObjectKey, Objects, StoreError, disk_cache::TEMP_PREFIX};

/// The cache that only its user empties.
const MODELS: &str = "models";
/// Objects that are looked up in the ledger at once.
const ORPHANS: usize = 1000;

/// How much may stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GcLimits {
    /// All caches together, except `cache/models`: what was used longest ago goes first. Models were fetched on
    /// purpose, perhaps for use without a network; they are left alone.
    pub cache_bytes: u64,
    /// Keyframe indexes of videos that were not opened for so long go, unless a waiting job needs them.
    pub forget_videos: Duration,
}

impl Default for GcLimits {
    fn default() -> Self {
        Self { cache_bytes: 10 << 30, forget_videos: Duration::from_secs(90 * 24 * 3600) }
    }
}

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Traces and thumbnails that belong to no answer and no job that may go on.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Files of the caches beyond the limit.
    pub cache_files: u64,
    /// Their bytes.
    pub cache_bytes: u64,
    /// Leftovers of writers that died.
    pub temp_files: u64,
    /// Their bytes.
    pub temp_bytes: u64,
    /// Forgotten versions of videos.
    pub videos: u64,
    /// Bytes that the ledger gave back.
    pub ledger_bytes: u64,
}

impl GcReport {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.object_bytes + self.cache_bytes + self.temp_bytes + self.ledger_bytes
    }
}

pub(crate) async fn collect(home: &Home, limits: &GcLimits) -> Result<GcReport, StoreError> {
    // The caller holds the home: nothing is being written.
    let freed = free_orphans(home.ledger(), home.objects(), Duration::ZERO).await?;
    let mut report = GcReport { objects: freed.objects, object_bytes: freed.bytes, ..GcReport::default() };
    free_files(&home.dir().join("objects"), u64::MAX, &mut report)?;
    free_files(&home.dir().join("cache"), limits.cache_bytes, &mut report)?;
    report.videos = home.ledger().forget_videos(limits.forget_videos.as_millis() as i64).await?;
    report.ledger_bytes = match home.ledger().compact().await {
        // Compacting needs room for a copy; what was freed so far is worth more than an error.
        Err(StoreError::Full { .. }) => 0,
        bytes => bytes?,
    };
    Ok(report)
}

/// Objects that were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Deletes traces and thumbnails that nothing in the ledger points at. `min_age` spares those whose row is about to be
/// written.
pub(crate) async fn free_orphans(
    ledger: &Ledger,
    objects: &Objects,
    min_age: Duration,
) -> Result<Freed, StoreError> {
    let store = objects.store();
    let before = Utc::now() - TimeDelta::from_std(min_age).unwrap_or(TimeDelta::MAX);
    let mut freed = Freed::default();
    let mut pages = store.list(None).try_chunks(ORPHANS);
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StoreError::object("list")(error.1))?;
        let old = page.into_iter().filter(|object| object.last_modified <= before);
        let ours: Vec<(ObjectKey, ObjectMeta)> =
            old.filter_map(|object| Some((ObjectKey::parse(object.location.as_ref())?, object))).collect();
        let keys: Vec<ObjectKey> = ours.iter().map(|(key, _)| *key).collect();
        let needed = ledger.needed(&keys).await?;
        for (key, object) in ours.iter().filter(|(key, _)| !needed.contains(key)) {
            store.delete(&object.location).await.map_err(StoreError::object(key))?;
            freed.objects += 1;
            freed.bytes += object.size;
        }
    }
    Ok(freed)
}

struct CacheFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Removes leftovers of dead writers under `dir`, and the files used longest ago beyond `limit_bytes`.
fn free_files(dir: &Path, limit_bytes: u64, report: &mut GcReport) -> Result<(), StoreError> {
    let mut files = Vec::new();
    walk(dir, &mut files)?;
    let (temp, mut files): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| is_leftover(&file.path));
    files.retain(|file| !file.path.starts_with(dir.join(MODELS)));
    for file in temp {
        remove(&file.path)?;
        report.temp_files += 1;
        report.temp_bytes += file.bytes;
    }
    files.sort_by_key(|file| file.used);
    let mut total: u64 = files.iter().map(|file| file.bytes).sum();
    for file in files {
        if total <= limit_bytes {
            break;
        }
        remove(&file.path)?;
        total -= file.bytes;
        report.cache_files += 1;
        report.cache_bytes += file.bytes;
    }
    Ok(())
}

/// Files that are being written are named so by this crate, by object_store (`name#1`) and by downloads.
fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = name
        .rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()));
    name.starts_with(TEMP_PREFIX) || staged || name.ends_with(".part")
}

fn walk(dir: &Path, files: &mut Vec<CacheFile>) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(StoreError::io("read folder", dir))?.flatten() {
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(CacheFile {
                path,
                bytes: meta.len(),
                used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), StoreError> {
    fs::remove_file(path).map_err(StoreError::io("remove", path))
}
