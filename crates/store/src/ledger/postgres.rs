//! Connecting to a ledger on a Postgres server, and upgrading it.

use std::{path::PathBuf, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions as _, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Ledger, LedgerOptions, LedgerReader, newest_version, sqlite};
use crate::{StoreError, db::Pool};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/postgres");

/// The views are `security_invoker`, which is new in it.
const OLDEST_SERVER: i32 = 150_000;
/// How long a caller waits for a connection, a server that restarts included.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How to upgrade a ledger.
#[derive(Clone, Default)]
pub struct MigrateOptions {
    /// Lets the role `spectemp_reader` log in with this password.
    pub reader_password: Option<String>,
}

/// What [`migrate`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Version before; `None` for an empty database.
    pub from: Option<i64>,
    /// Version now.
    pub to: i64,
}

impl Ledger {
    /// Connects to the ledger at `url`, `postgres://user@host/database`. It must have been upgraded by [`migrate`].
    /// A `sqlite:///path` is opened as by [`Ledger::open`].
    ///
    /// # Errors
    /// [`StoreError::NotMigrated`], [`StoreError::Newer`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn connect(url: &str, options: &LedgerOptions) -> Result<Self, StoreError> {
        if let Some(path) = sqlite::file_of(url) {
            return Self::open(&path, options).await;
        }
        let connect = parse_url(url)?;
        let database = name_of(&connect);
        let pool = PgPoolOptions::new()
            .max_connections(options.connections.max(1))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(connect)
            .await
            .map_err(StoreError::database("connect"))?;
        let known = newest_version(&MIGRATIONS);
        match version(&pool).await? {
            Some(found) if found > known => {
                return Err(StoreError::Newer { path: PathBuf::from(database), found, known });
            }
            Some(found) if found == known => {}
            found => return Err(StoreError::NotMigrated { database, found: found.unwrap_or(0), known }),
        }
        let reads = Pool::Postgres(pool);
        let reader =
            LedgerReader { path: None, reads: reads.clone(), reader_url: options.reader_url.clone() };
        Ok(Self { reader, writes: reads, deaths_alone: options.deaths_alone })
    }
}

/// Upgrades the ledger at `url` (several at once wait for each other), and makes the role `spectemp_reader` with its
/// grants. A `sqlite:///path` is made or upgraded too.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Unavailable`], [`StoreError::Database`].
pub async fn migrate(url: &str, options: &MigrateOptions) -> Result<Migrated, StoreError> {
    if let Some(path) = sqlite::file_of(url) {
        return sqlite::migrate(&path).await;
    }
    // A migration may take its time; its text is no news.
    let connect = parse_url(url)?.disable_statement_logging();
    let database = name_of(&connect);
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(connect)
        .await
        .map_err(StoreError::database("connect"))?;
    let done = upgrade(&pool, &database, options).await;
    pool.close().await;
    done
}

async fn upgrade(pool: &PgPool, database: &str, options: &MigrateOptions) -> Result<Migrated, StoreError> {
    use sqlx::migrate::MigrateError;
    refuse_old_server(pool).await?;
    let from = version(pool).await?;
    let known = newest_version(&MIGRATIONS);
    if let Some(found) = from.filter(|found| *found > known) {
        return Err(StoreError::Newer { path: PathBuf::from(database), found, known });
    }
    crate::reader_role::make(pool, options.reader_password.as_deref()).await?;
    MIGRATIONS.run(pool).await.map_err(|error| match error {
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => {
            StoreError::database("upgrade")(cause)
        }
        other => StoreError::Database { what: "upgrade", cause: other.to_string() },
    })?;
    crate::reader_role::limit(pool).await?;
    Ok(Migrated { from, to: known })
}

async fn refuse_old_server(pool: &PgPool) -> Result<(), StoreError> {
    let number: i32 = sqlx::query_scalar("select current_setting('server_version_num')::int")
        .fetch_one(pool)
        .await
        .map_err(StoreError::database("ask for the server's version"))?;
    if number >= OLDEST_SERVER {
        return Ok(());
    }
    let cause = format!("the server is Postgres {}, but 15 is the oldest that will do", number / 10_000);
    Err(StoreError::Database { what: "upgrade", cause })
}

/// The newest applied migration; `None` for an empty database.
async fn version(pool: &PgPool) -> Result<Option<i64>, StoreError> {
    let fail = || StoreError::database("read its schema version");
    let known: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(pool)
        .await
        .map_err(fail())?;
    if !known {
        return Ok(None);
    }
    sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
        .fetch_one(pool)
        .await
        .map_err(fail())
}

/// Connection options; a message of a bad URL must not hold its password.
pub(crate) fn parse_url(url: &str) -> Result<PgConnectOptions, StoreError> {
    let known = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let bad = |cause: &str| StoreError::Database { what: "connect", cause: cause.to_owned() };
    if !known {
        return Err(bad("the URL must begin with postgres:// or sqlite://"));
    }
    let options =
        PgConnectOptions::from_str(url).map_err(|_| bad("the URL is no postgres://user@host/database"))?;
    Ok(options.application_name("spectemp"))
}

fn name_of(connect: &PgConnectOptions) -> String {
    format!("database {} on {}", connect.get_database().unwrap_or("postgres"), connect.get_host())
}
