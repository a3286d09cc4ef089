//! A cache of small files: keyed, limited in size, safe to lose.
//!
//! Each entry is one file, written aside and renamed, so that a reader sees it whole or not at all. It begins with a
//! checksum: a damaged entry is a miss and is removed. Entries leave in the order of their last use (the file's
//! modification time, set anew when it is read). Other processes may read, write and remove beside this one: the count
//! of bytes is then an estimate that every clean-up sets right.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;

/// Begins each entry, and tells what wrote it.
const MAGIC: &[u8; 4] = b"stc1";
const CHECKSUM: usize = 16;
const HEADER: usize = MAGIC.len() + CHECKSUM;
/// A clean-up frees so much more than it must, so that it is not repeated at each write.
const SLACK: f64 = 0.1;
/// An entry's last use is not written more often than this.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// See the module. Cheap to clone; all clones share the count.
#[derive(Clone, Debug)]
pub struct DiskCache {
    dir: PathBuf,
    limit_bytes: u64,
    bytes: Arc<AtomicU64>,
}

/// One file of a cache.
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl DiskCache {
    /// The cache in the folder `dir`, made if it is missing; cut to `limit_bytes` if it is larger.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(dir: &Path, limit_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let cache = Self { dir: dir.to_owned(), limit_bytes, bytes: Arc::default() };
        cache.trim()?;
        Ok(cache)
    }

    /// The bytes under `key`; `None` where there are none, or damaged ones.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        let path = self.path(key);
        let mut file = File::open(&path).ok()?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).ok()?;
        let intact = content.len() >= HEADER
            && content.starts_with(MAGIC)
            && content[MAGIC.len()..HEADER] == checksum(key, &content[HEADER..]);
        if !intact {
            // Another process may have replaced it meanwhile: then a good entry is lost, and made again.
            let _ = fs::remove_file(&path);
            return None;
        }
        let now = SystemTime::now();
        let used = file.metadata().and_then(|meta| meta.modified());
        if used.is_ok_and(|used| now.duration_since(used).unwrap_or(TOUCH_EVERY) >= TOUCH_EVERY) {
            // A cache that may only be read still serves.
            let _ = File::options().append(true).open(&path).and_then(|file| file.set_modified(now));
        }
        Some(Bytes::from(content).slice(HEADER..))
    }

    /// Keeps `bytes` under `key`. What is larger than the whole cache is not kept.
    ///
    /// # Errors
    /// The entry cannot be written; the cache stays as it was, and a caller may go on without it.
    pub fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        let size = (HEADER + bytes.len()) as u64;
        if size > self.limit_bytes {
            return Ok(());
        }
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&checksum(key, bytes))?;
        file.write_all(bytes)?;
        // No sync: after a power cut the checksum tells.
        file.persist(&path)?;
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > self.limit_bytes {
            self.trim()?;
        }
        Ok(())
    }

    /// Removes the entries used longest ago until the cache is within its limit; bytes freed.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn trim(&self) -> io::Result<u64> {
        let mut entries = entries(&self.dir)?;
        let total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let mut left = total;
        if total > self.limit_bytes {
            entries.sort_by_key(|entry| entry.used);
            let goal = (self.limit_bytes as f64 * (1.0 - SLACK)) as u64;
            for entry in entries {
                if left <= goal {
                    break;
                }
                // Gone already is as good.
                let _ = fs::remove_file(&entry.path);
                left -= entry.bytes;
            }
        }
        self.bytes.store(left, Ordering::Relaxed);
        Ok(total - left)
    }

    fn path(&self, key: &str) -> PathBuf {
        let name = blake3::hash(key.as_bytes()).to_hex();
        self.dir.join(&name[..2]).join(&name[2..40])
    }
}

/// Names of files that are being written.
pub(crate) const TEMP_PREFIX: &str = ".tmp-";

/// Over key and content, so that a file under another key's name is damaged too.
fn checksum(key: &str, bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes()).update(&[0]).update(bytes);
    let mut checksum = [0; CHECKSUM];
    hasher.finalize_xof().fill(&mut checksum);
    checksum
}

/// All entries, one level of folders deep. What disappears meanwhile is left out.
fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(dir)?.flatten() {
        let Ok(files) = fs::read_dir(folder.path()) else { continue };
        for file in files.flatten() {
            if file.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
                continue;
            }
            if let Ok(meta) = file.metadata()
                && meta.is_file()
            {
                found.push(Entry {
                    path: file.path(),
                    bytes: meta.len(),
                    used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only_file(dir: &Path) -> PathBuf {
        let entries = entries(dir).unwrap();
        assert_eq!(entries.len(), 1);
        entries[0].path.clone()
    }

    #[test]
    fn damage_of_any_kind_is_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
        let damages: [fn(&mut Vec<u8>); 5] =
            [|c| c[30] ^= 1, |c| c.truncate(25), |c| c.truncate(3), |c| c.clear(), |c| c.push(0)];
        for damage in damages {
            cache.put("key", b"some bytes of a block").unwrap();
            assert_eq!(cache.get("key").unwrap().as_ref(), b"some bytes of a block");
            let path = only_file(dir.path());
            let mut content = fs::read(&path).unwrap();
            damage(&mut content);
            fs::write(&path, content).unwrap();
            assert_eq!(cache.get("key"), None);
            assert!(!path.exists());
        }
        cache.put("key", b"x").unwrap();
        let path = only_file(dir.path());
        let other = cache.path("other");
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::rename(path, other).unwrap();
        assert_eq!(cache.get("other"), None);
    }

    #[test]
    fn the_entry_used_longest_ago_leaves_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 10_500).unwrap();
        let old = SystemTime::now() - Duration::from_secs(3600);
        for n in 0..10 {
            cache.put(&n.to_string(), &[n; 1000]).unwrap();
            let file = File::options().append(true).open(cache.path(&n.to_string())).unwrap();
            file.set_modified(old + Duration::from_secs(n.into())).unwrap();
        }
        assert!(cache.get("0").is_some());
        cache.put("10", &[10; 1000]).unwrap();
        assert!(cache.get("0").is_some(), "used just now");
        assert!(cache.get("1").is_none(), "used longest ago");
        assert!(cache.get("10").is_some());
        let bytes: u64 = entries(dir.path()).unwrap().iter().map(|entry| entry.bytes).sum();
        assert!(bytes <= 10_500);
        assert_eq!(bytes, cache.bytes.load(Ordering::Relaxed));
    }

    #[test]
    fn two_processes_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let threads: Vec<_> = (0..4)
            .map(|n: u8| {
                let dir = dir.path().to_owned();
                std::thread::spawn(move || {
                    let cache = DiskCache::open(&dir, 40_000).unwrap();
                    for k in 0..200_u32 {
                        let key = (k % 50).to_string();
                        cache.put(&key, &[k as u8 % 50; 900]).unwrap();
                        if let Some(bytes) = cache.get(&((k + u32::from(n)) % 50).to_string()) {
                            assert!(bytes.iter().all(|byte| u32::from(*byte) == (k + u32::from(n)) % 50));
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let cache = DiskCache::open(dir.path(), 40_000).unwrap();
        assert!(entries(&cache.dir).unwrap().iter().map(|entry| entry.bytes).sum::<u64>() <= 40_000);
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 100).unwrap();
        cache.put("large", &[0; 1000]).unwrap();
        assert_eq!(cache.get("large"), None);
        assert!(entries(dir.path()).unwrap().is_empty());
    }
}
