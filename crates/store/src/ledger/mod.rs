//! The ledger: the one truth about jobs, rounds and answers, in a SQLite file or on a Postgres server.
//!
//! SQLite: WAL mode, one writing connection and a few reading ones. `synchronous = FULL`: every commit is synced to
//! the disk, so that a committed round survives a power cut as well as `kill -9`; it costs one sync (about a
//! millisecond on an SSD) per round, and a round takes seconds. Postgres does the same unless its operator turned
//! `synchronous_commit` off.
//!
//! Each claim raises a job's epoch, and every later write names the epoch it was claimed with: a writer that was
//! overtaken changes nothing. A lease is for a time (several workers) or for as long as the holder of the home lives.

mod basis;
mod batch;
mod change;
mod claim;
mod expire;
mod explain;
mod job;
mod lease;
mod list;
mod manifest;
mod postgres;
#[cfg(test)]
mod property;
mod read;
mod request;
mod reserve;
mod retention;
mod round_row;
mod sqlite;
mod submit;
mod video;

use std::{fmt, ops::Deref, path::PathBuf};

use sqlx::migrate::Migrator;

pub use batch::{Batch, Webhook};
pub use claim::{Claim, Claimed};
pub use expire::Reclaimed;
pub use explain::Explained;
pub use job::{AnswerRow, AnsweredJob, Counts, Cursor, FailedJob, Job, Page};
pub use lease::{Finished, Lease};
pub use list::JobFilter;
pub use manifest::{BatchManifest, Sealing};
pub use postgres::{MigrateOptions, Migrated, migrate};
pub use request::KeptRequest;
pub use submit::{JobConflict, NewJob, Submission};
pub use video::VideoRow;

use crate::{
    StoreError,
    db::{Pool, query},
};

pub(crate) use postgres::parse_url;

/// Who owns jobs where nobody says otherwise.
pub const DEFAULT_TENANT: &str = "default";

/// Which database holds a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerKind {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

/// How to open a ledger.
#[derive(Clone)]
pub struct LedgerOptions {
    /// SQLite: most pages (of 4 KiB) that the file may have; a write beyond fails as on a full disk.
    pub max_pages: Option<u32>,
    /// Postgres: most connections of this process.
    pub connections: u32,
    /// Deaths of the process while a job ran alone after which it has failed.
    pub deaths_alone: u32,
    /// Postgres: URL with the login of `spectemp_reader`, for [`LedgerReader::sql`].
    pub reader_url: Option<String>,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self { max_pages: None, connections: 16, deaths_alone: 3, reader_url: None }
    }
}

impl fmt::Debug for LedgerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerOptions")
            .field("max_pages", &self.max_pages)
            .field("connections", &self.connections)
            .field("deaths_alone", &self.deaths_alone)
            .finish_non_exhaustive()
    }
}

/// A ledger open for reading. Cheap to clone.
#[derive(Clone)]
pub struct LedgerReader {
    /// The file; `None` on a server.
    pub(crate) path: Option<PathBuf>,
    pub(crate) reads: Pool,
    /// Holds a password.
    pub(crate) reader_url: Option<String>,
}

/// A ledger open for writing. A file has one such process at a time, see [`crate::Home`]. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    reader: LedgerReader,
    pub(crate) writes: Pool,
    deaths_alone: u32,
}

impl Deref for Ledger {
    type Target = LedgerReader;

    fn deref(&self) -> &LedgerReader {
        &self.reader
    }
}

impl fmt::Debug for LedgerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerReader")
            .field("kind", &self.kind())
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("kind", &self.kind()).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Closes all connections; a file's write-ahead log is merged into it.
    pub async fn close(&self) {
        self.reader.reads.close().await;
        self.writes.close().await;
    }
}

impl LedgerReader {
    /// Which database it is.
    pub fn kind(&self) -> LedgerKind {
        self.reads.kind()
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        query("answer", "select 1").one(&self.reads).await.map(drop)
    }
}

fn newest_version(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or(0)
}
