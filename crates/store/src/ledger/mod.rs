//! The ledger: the one truth about jobs, rounds and answers.
//!
//! SQLite in WAL mode, one writing connection and a few reading ones. `synchronous = FULL`: every commit is
//! synced to the disk, so that a committed round survives a power cut as well as `kill -9`; it costs one sync
//! (about a millisecond on an SSD) per round, and a round takes seconds.
//!
//! Each claim raises a job's epoch, and every later write names the epoch it was claimed with: a writer that was
//! overtaken changes nothing. Nothing here depends on SQLite beyond the texts of the statements.

mod basis;
mod claim;
mod job;
mod lease;
#[cfg(test)]
mod property;
mod read;
mod reserve;
mod round_row;
mod submit;
mod video;

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use claim::{Claim, Claimed, Reclaimed};
pub use job::{AnswerRow, AnsweredJob, Counts, Cursor, FailedJob, Job, Page};
pub use lease::{Finished, Lease};
pub use submit::{JobConflict, Submission};
pub use video::VideoRow;

use crate::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// How to open a ledger.
#[derive(Clone, Debug, Default)]
pub struct LedgerOptions {
    /// Most pages (of 4 KiB) that the file may have; a write beyond fails as on a full disk.
    pub max_pages: Option<u32>,
}

/// A ledger open for reading. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LedgerReader {
    pub(crate) path: PathBuf,
    pub(crate) reads: SqlitePool,
}

/// A ledger open for writing; there is one such process at a time, see [`crate::Home`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    reader: LedgerReader,
    writes: SqlitePool,
}

impl Deref for Ledger {
    type Target = LedgerReader;

    fn deref(&self) -> &LedgerReader {
        &self.reader
    }
}

impl Ledger {
    /// Opens or makes the ledger at `path` and upgrades an older one.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a ledger of a later program; a file that is no ledger; a full disk.
    pub async fn open(path: &Path, options: &LedgerOptions) -> Result<Self, StoreError> {
        let writes = writing_pool(path, options).await?;
        refuse_newer(path, &writes).await?;
        MIGRATIONS.run(&writes).await.map_err(|error| migration_error(path, error))?;
        reserve::make(path);
        Ok(Self { reader: LedgerReader::open(path).await?, writes })
    }

    /// Closes all connections; the write-ahead log is merged into the file.
    pub async fn close(&self) {
        self.reader.reads.close().await;
        self.writes.close().await;
    }

    /// Gives pages that nothing uses back to the file system; bytes freed.
    pub(crate) async fn compact(&self) -> Result<u64, StoreError> {
        let before = file_bytes(&self.path);
        for statement in ["vacuum", "pragma wal_checkpoint(truncate)"] {
            sqlx::raw_sql(statement).execute(&self.writes).await.map_err(StoreError::database("compact"))?;
        }
        Ok(before.saturating_sub(file_bytes(&self.path)))
    }
}

impl LedgerReader {
    /// Opens an existing ledger of exactly this program's version for reading.
    ///
    /// # Errors
    /// [`StoreError::Newer`]; [`StoreError::Database`] where there is none.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let connect = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
        let reads = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(connect)
            .await
            .map_err(StoreError::database("open for reading"))?;
        refuse_newer(path, &reads).await?;
        Ok(Self { path: path.to_owned(), reads })
    }

    /// True where migrations are waiting for a writer.
    pub(crate) async fn is_older(&self) -> Result<bool, StoreError> {
        Ok(version(&self.reads).await?.unwrap_or(0) < newest_version())
    }
}

const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

async fn writing_pool(path: &Path, options: &LedgerOptions) -> Result<SqlitePool, StoreError> {
    let mut connect = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    if let Some(pages) = options.max_pages {
        connect = connect.pragma("max_page_count", pages.to_string());
    }
    SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(connect)
        .await
        .map_err(StoreError::database("open"))
}

/// The newest applied migration; `None` for a fresh file.
async fn version(pool: &SqlitePool) -> Result<Option<i64>, StoreError> {
    let fail = || StoreError::database("read its schema version");
    let known: Option<i64> =
        sqlx::query_scalar("select 1 from sqlite_master where name = '_sqlx_migrations'")
            .fetch_optional(pool)
            .await
            .map_err(fail())?;
    if known.is_none() {
        return Ok(None);
    }
    sqlx::query_scalar("select max(version) from _sqlx_migrations").fetch_one(pool).await.map_err(fail())
}

fn newest_version() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

async fn refuse_newer(path: &Path, pool: &SqlitePool) -> Result<(), StoreError> {
    let known = newest_version();
    match version(pool).await? {
        Some(found) if found > known => Err(StoreError::Newer { path: path.to_owned(), found, known }),
        _ => Ok(()),
    }
}

fn migration_error(path: &Path, error: sqlx::migrate::MigrateError) -> StoreError {
    use sqlx::migrate::MigrateError;
    match error {
        MigrateError::VersionMissing(found) => {
            StoreError::Newer { path: path.to_owned(), found, known: newest_version() }
        }
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => {
            StoreError::database("upgrade")(cause)
        }
        other => StoreError::Database { what: "upgrade", cause: other.to_string() },
    }
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Milliseconds since 1970, the ledger's clock. It only dates rows: no decision hangs on it.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
