//! The home: one folder with the ledger, the objects and the caches, and a lock file.
//!
//! ```text
//! home.lock      held by the one process that writes; names it
//! ledger.sqlite  (and -wal, -shm; ledger.reserve is room for the last words on a full disk)
//! objects/       traces and thumbnails
//! cache/NAME/    what can be made or fetched again
//! ```
//!
//! The lock is the operating system's and dies with its holder, so a killed process blocks nobody. Because there is
//! one writer, whatever the ledger says is running when a home is opened was left by a process that is gone.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use spectemp_types::Trace;

use crate::{
    DiskCache, GcLimits, GcReport, Lease, Ledger, LedgerOptions, LedgerReader, Objects, Reclaimed, Store,
    StoreError,
};

const LEDGER_FILE: &str = "ledger.sqlite";
const LOCK_FILE: &str = "home.lock";
/// Many on purpose: a user who kills the program (or a machine that loses power) again and again within one slow round
/// must not lose an answer by it, and a job that does bring the program down holds nobody up meanwhile: it runs last.
const DEATHS_ALONE: u32 = 8;
const RETRY_LOCK_EVERY: Duration = Duration::from_millis(100);

/// A home held by this process.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    store: Store,
    reclaimed: Reclaimed,
    // The last field: dropped after everything that it protects.
    _lock: File,
}

/// A home open for reading, whoever holds it.
#[derive(Debug)]
pub struct HomeReader {
    dir: PathBuf,
    ledger: LedgerReader,
    objects: Objects,
}

impl Home {
    /// Opens the home `dir`, makes it where it is missing, upgrades its ledger, and puts jobs that a dead process left
    /// running back into the queue. Where another process holds it, this waits for it (`wait`) or fails.
    ///
    /// # Errors
    /// [`StoreError::Held`] without `wait`; [`StoreError::Newer`]; [`StoreError::Io`], [`StoreError::Full`],
    /// [`StoreError::Database`].
    pub async fn open(dir: &Path, wait: bool) -> Result<Self, StoreError> {
        let options = LedgerOptions { deaths_alone: DEATHS_ALONE, ..LedgerOptions::default() };
        Self::open_with(dir, wait, &options).await
    }

    /// As [`Self::open`], with options for the ledger.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(dir: &Path, wait: bool, options: &LedgerOptions) -> Result<Self, StoreError> {
        make_dir(&dir.join("objects"))?;
        make_dir(&dir.join("cache"))?;
        let lock = lock(dir, wait).await?;
        let ledger = Ledger::open(&dir.join(LEDGER_FILE), options).await?;
        let reclaimed = ledger.reclaim().await?;
        if reclaimed != Reclaimed::default() {
            tracing::info!(
                jobs.requeued = reclaimed.requeued,
                jobs.failed = reclaimed.dead,
                "took over jobs of a process that is gone"
            );
        }
        Ok(Self {
            dir: dir.to_owned(),
            store: Store::new(ledger, Objects::local(&dir.join("objects"))?),
            reclaimed,
            _lock: lock,
        })
    }

    /// Opens the home `dir` for reading; another process may hold it and write meanwhile. An older ledger that nobody
    /// holds is upgraded first.
    ///
    /// # Errors
    /// [`StoreError::NoHome`], [`StoreError::Newer`], [`StoreError::OlderAndHeld`], [`StoreError::Database`].
    pub async fn open_reader(dir: &Path) -> Result<HomeReader, StoreError> {
        let path = dir.join(LEDGER_FILE);
        if !path.is_file() {
            return Err(StoreError::NoHome { dir: dir.to_owned() });
        }
        let mut ledger = LedgerReader::open(&path).await?;
        if ledger.is_older().await? {
            match Self::open(dir, false).await {
                Ok(home) => home.close().await,
                Err(StoreError::Held { holder, .. }) => {
                    return Err(StoreError::OlderAndHeld { path, holder });
                }
                Err(error) => return Err(error),
            }
            ledger = LedgerReader::open(&path).await?;
        }
        Ok(HomeReader { dir: dir.to_owned(), ledger, objects: Objects::local(&dir.join("objects"))? })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        self.store.ledger()
    }

    /// Traces and thumbnails.
    pub fn objects(&self) -> &Objects {
        self.store.objects()
    }

    /// What was taken over from a dead process when this home was opened.
    pub fn reclaimed(&self) -> Reclaimed {
        self.reclaimed
    }

    /// The folder `cache/name`, made if it is missing.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub fn cache_dir(&self, name: &str) -> Result<PathBuf, StoreError> {
        let dir = self.dir.join("cache").join(name);
        make_dir(&dir)?;
        Ok(dir)
    }

    /// The disk cache `cache/name`, at most `limit_bytes` large.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub fn disk_cache(&self, name: &str, limit_bytes: u64) -> Result<DiskCache, StoreError> {
        let dir = self.cache_dir(name)?;
        DiskCache::open(&dir, limit_bytes).map_err(StoreError::io("open cache", &dir))
    }

    /// Ledger and objects together.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// As [`Store::finish`].
    ///
    /// # Errors
    /// As [`Store::finish`].
    pub async fn finish(&self, lease: Lease, trace: &Trace) -> Result<(), StoreError> {
        self.store.finish(lease, trace).await
    }

    /// Frees what nothing needs.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Object`], [`StoreError::Database`].
    pub async fn gc(&self, limits: &GcLimits) -> Result<GcReport, StoreError> {
        crate::gc::collect(self, limits).await
    }

    /// Closes the ledger and lets go of the home.
    pub async fn close(self) {
        self.store.ledger().close().await;
    }
}

impl HomeReader {
    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The ledger.
    pub fn ledger(&self) -> &LedgerReader {
        &self.ledger
    }

    /// Traces and thumbnails.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }
}

fn make_dir(dir: &Path) -> Result<(), StoreError> {
    std::fs::create_dir_all(dir).map_err(StoreError::io("make folder", dir))
}

/// Takes the home's lock and writes down who holds it.
async fn lock(dir: &Path, wait: bool) -> Result<File, StoreError> {
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if wait => {
                if !told {
                    tracing::warn!(home.dir = %dir.display(), home.holder = holder(&mut file), "waiting for the home");
                    told = true;
                }
                tokio::time::sleep(RETRY_LOCK_EVERY).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Held { dir: dir.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", &path)(source)),
        }
    }
    let name = format!("process {} ({})\n", std::process::id(), command_name());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(name.as_bytes()))
        .map_err(StoreError::io("write", &path))?;
    Ok(file)
}

/// The program and its subcommand; no further arguments, which may hold a signed URL.
fn command_name() -> String {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let program =
        Path::new(&program).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    match args.next() {
        Some(word) if word.chars().all(|letter| letter.is_ascii_lowercase()) => format!("{program} {word}"),
        _ => program,
    }
}

/// What the holder wrote; it may be writing just now.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.rewind().and_then(|()| file.take(1024).read_to_string(&mut text)) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "another process".to_owned(),
    }
}
