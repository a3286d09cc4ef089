//! Opening a ledger that is a file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Ledger, LedgerOptions, LedgerReader, newest_version, reserve};
use crate::{StoreError, db::Pool};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

impl Ledger {
    /// Opens or makes the ledger at `path` and upgrades an older one.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a ledger of a later program; a file that is no ledger; a full disk.
    pub async fn open(path: &Path, options: &LedgerOptions) -> Result<Self, StoreError> {
        upgrade(path, options).await?;
        let writes = writing_pool(path, options, true).await?;
        reserve::make(path);
        Ok(Self {
            reader: LedgerReader::open(path).await?,
            writes: Pool::Sqlite(writes),
            deaths_alone: options.deaths_alone,
        })
    }

    /// Gives pages that nothing uses back to the file system; bytes freed.
    pub(crate) async fn compact(&self) -> Result<u64, StoreError> {
        let (Pool::Sqlite(writes), Some(path)) = (&self.writes, &self.path) else { return Ok(0) };
        let before = file_bytes(path);
        for statement in ["vacuum", "pragma wal_checkpoint(truncate)"] {
            sqlx::raw_sql(statement).execute(writes).await.map_err(StoreError::database("compact"))?;
        }
        Ok(before.saturating_sub(file_bytes(path)))
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
        Ok(Self { path: Some(path.to_owned()), reads: Pool::Sqlite(reads), reader_url: None })
    }

    /// True where migrations are waiting for a writer.
    pub(crate) async fn is_older(&self) -> Result<bool, StoreError> {
        match &self.reads {
            Pool::Sqlite(reads) => Ok(version(reads).await?.unwrap_or(0) < newest_version(&MIGRATIONS)),
            Pool::Postgres(_) => Ok(false),
        }
    }
}

/// Runs what migrations are missing. Foreign keys are not looked at meanwhile: a migration may rebuild a table.
async fn upgrade(path: &Path, options: &LedgerOptions) -> Result<(), StoreError> {
    let pool = writing_pool(path, options, false).await?;
    let upgraded = match refuse_newer(path, &pool).await {
        Ok(()) => MIGRATIONS.run(&pool).await.map_err(|error| migration_error(path, error)),
        newer => newer,
    };
    pool.close().await;
    upgraded
}

async fn writing_pool(
    path: &Path,
    options: &LedgerOptions,
    foreign_keys: bool,
) -> Result<SqlitePool, StoreError> {
    let mut connect = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(foreign_keys)
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

async fn refuse_newer(path: &Path, pool: &SqlitePool) -> Result<(), StoreError> {
    let known = newest_version(&MIGRATIONS);
    match version(pool).await? {
        Some(found) if found > known => Err(StoreError::Newer { path: path.to_owned(), found, known }),
        _ => Ok(()),
    }
}

fn migration_error(path: &Path, error: sqlx::migrate::MigrateError) -> StoreError {
    use sqlx::migrate::MigrateError;
    match error {
        MigrateError::VersionMissing(found) => {
            StoreError::Newer { path: path.to_owned(), found, known: newest_version(&MIGRATIONS) }
        }
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => {
            StoreError::database("upgrade")(cause)
        }
        other => StoreError::Database { what: "upgrade", cause: other.to_string() },
    }
}

/// The ledger with its write-ahead log is more than one file; this is the main one.
fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// The file of a `sqlite:` URL.
pub(super) fn file_of(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    Some(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
}

/// As [`super::migrate`], for a file.
pub(super) async fn migrate(path: &Path) -> Result<super::Migrated, StoreError> {
    let options = LedgerOptions::default();
    let pool = writing_pool(path, &options, false).await?;
    let from = version(&pool).await;
    pool.close().await;
    let from = from?;
    upgrade(path, &options).await?;
    Ok(super::Migrated { from, to: newest_version(&MIGRATIONS) })
}
