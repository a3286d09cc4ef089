//! Questions in SQL, from outside: read-only, on the documented views, with a time limit and a limit on rows. Here for
//! SQLite; `sql_postgres.rs` is its pendant.
//!
//! Four fences, each enough for most mistakes: the connection is read-only; the authorizer (see `authorizer.rs`)
//! allows reading the views and nothing else; a private table's name may not even occur in the text, because the
//! authorizer cannot tell a view's own reads from those of a common table expression that borrows the view's name;
//! the progress handler ends what runs too long.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, Executor, Row, SqlSafeStr, SqliteConnection,
    Statement, TypeInfo, ValueRef,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use crate::{
    DEFAULT_TENANT, LedgerReader, StoreError,
    authorizer::{self, Rules},
    sql_postgres,
};

/// The documented views.
pub const VIEWS: [&str; 7] =
    ["answers", "failures", "evidence", "rounds", "stages", "videos", "jobs_by_state"];

/// Names that begin like this are private.
const PRIVATE: [&str; 4] = ["ledger_", "sqlite_", "_sqlx", "pragma_"];

/// Virtual machine instructions between two looks at the clock: well under a millisecond.
const INSTRUCTIONS_PER_LOOK: i32 = 10_000;

/// Limits of one query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SqlLimits {
    /// Longest run.
    pub timeout: Duration,
    /// Most rows; what lies beyond is left out and the table says so.
    pub rows: usize,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), rows: 100_000 }
    }
}

/// A result.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlTable {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows: null, numbers and texts; a blob is its hexadecimal text.
    pub rows: Vec<Vec<Value>>,
    /// True where rows beyond the limit were left out.
    pub truncated: bool,
}

impl LedgerReader {
    /// Answers one `select` of `tenant` on the views: its own rows on Postgres; SQLite answers the default tenant only.
    ///
    /// # Errors
    /// [`StoreError::NoReader`], [`StoreError::SqlDenied`], [`StoreError::SqlTimeout`], [`StoreError::Sql`] with the database's own words.
    pub async fn sql(&self, tenant: &str, query: &str, limits: SqlLimits) -> Result<SqlTable, StoreError> {
        let Some(path) = &self.path else {
            return sql_postgres::select(self, tenant, query, limits).await;
        };
        if tenant != DEFAULT_TENANT {
            let what =
                format!("be asked by tenant {tenant} on SQLite, which has no rows of one tenant's own");
            return Err(StoreError::SqlDenied { what });
        }
        refuse_private_names(query)?;
        // A connection of its own, never given back to the pool: authorizer and handler end with it.
        let mut connection = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging()
            .connect()
            .await
            .map_err(StoreError::database("open for a query"))?;
        let fences = Fences::raise(&mut connection, limits.timeout).await?;
        let table = select(&mut connection, query, limits.rows).await;
        let closed = connection.close().await;
        let table = table.map_err(|error| fences.explain(&error, limits))?;
        closed.map_err(StoreError::database("end a query"))?;
        Ok(table)
    }
}

/// What the fences have to say afterwards.
struct Fences {
    denied: Arc<Mutex<Option<String>>>,
    late: Arc<AtomicBool>,
}

impl Fences {
    async fn raise(connection: &mut SqliteConnection, timeout: Duration) -> Result<Self, StoreError> {
        let fail = || StoreError::database("fence a query");
        let tables: Vec<String> =
            sqlx::query_scalar("select lower(name) from sqlite_master where type = 'table'")
                .fetch_all(&mut *connection)
                .await
                .map_err(fail())?;
        let fences = Self { denied: Arc::default(), late: Arc::default() };
        let rules =
            Rules { private: tables.into_iter().collect::<HashSet<_>>(), denied: Arc::clone(&fences.denied) };
        let late = Arc::clone(&fences.late);
        let mut handle = connection.lock_handle().await.map_err(fail())?;
        let end = Instant::now() + timeout;
        let in_time = move || {
            let in_time = Instant::now() < end;
            late.fetch_or(!in_time, Ordering::Relaxed);
            in_time
        };
        authorizer::install(&mut handle, rules, INSTRUCTIONS_PER_LOOK, in_time).map_err(|code| {
            StoreError::Database {
                what: "fence a query",
                cause: format!("sqlite3_set_authorizer gave {code}"),
            }
        })?;
        drop(handle);
        Ok(fences)
    }

    fn explain(&self, error: &sqlx::Error, limits: SqlLimits) -> StoreError {
        if let Some(what) = self.denied.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return StoreError::SqlDenied { what };
        }
        if self.late.load(Ordering::Relaxed) {
            return StoreError::SqlTimeout { seconds: limits.timeout.as_secs_f64() };
        }
        match error.as_database_error() {
            // Said before the authorizer is asked.
            Some(error) if error.message().starts_with("cannot modify") => {
                StoreError::SqlDenied { what: "change anything".to_owned() }
            }
            Some(error) => StoreError::Sql(error.message().to_owned()),
            None => StoreError::Sql(error.to_string()),
        }
    }
}

async fn select(
    connection: &mut SqliteConnection,
    query: &str,
    limit: usize,
) -> Result<SqlTable, sqlx::Error> {
    let statement = connection.prepare(AssertSqlSafe(query.to_owned()).into_sql_str()).await?;
    let columns: Vec<String> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut table = SqlTable { columns, rows: Vec::new(), truncated: false };
    let mut rows = statement.query().fetch(connection);
    while let Some(row) = rows.try_next().await? {
        if table.rows.len() == limit {
            table.truncated = true;
            break;
        }
        table.rows.push((0..row.columns().len()).map(|index| value(&row, index)).collect::<Result<_, _>>()?);
    }
    Ok(table)
}

fn value(row: &SqliteRow, index: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    Ok(match raw.type_info().name() {
        "INTEGER" | "BOOLEAN" => row.try_get_unchecked::<i64, _>(index)?.into(),
        "REAL" => row.try_get_unchecked::<f64, _>(index)?.into(),
        "BLOB" => hex(row.try_get_unchecked::<&[u8], _>(index)?).into(),
        _ => row.try_get_unchecked::<String, _>(index)?.into(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn refuse_private_names(query: &str) -> Result<(), StoreError> {
    let word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$';
    for name in query.split(|letter| !word(letter)) {
        let name = name.to_lowercase();
        if PRIVATE.iter().any(|private| name.starts_with(private)) && name != "sqlite_version" {
            return Err(StoreError::SqlDenied { what: format!("name {name}") });
        }
    }
    Ok(())
}
