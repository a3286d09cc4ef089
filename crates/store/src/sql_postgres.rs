//! Questions in SQL on Postgres: one connection per question, with the login of `spectemp_reader`.
//!
//! The fences: the role may read the views and what they need, nothing else; row-level security leaves one tenant's
//! rows, and which tenant hangs on the backend's entry in a table that only the ledger's owner can write (see
//! `migrations/postgres/0003_reader.sql`), not on a setting; the transaction is read-only and has a time limit; the
//! question is one statement inside of a `select` of ours, so that nothing but a query can stand there. Besides,
//! names of system tables and of functions that run a text as a query are refused, because sessions of one login can
//! see each other's questions there.

use std::time::Duration;

use futures::TryStreamExt;
use serde_json::{Number, Value};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, Executor, PgConnection, Row, SqlSafeStr, Statement,
    TypeInfo, postgres::PgRow,
};

use crate::{LedgerReader, SqlLimits, SqlTable, StoreError, db::Pool};

/// Names that begin like this are private.
const PRIVATE: [&str; 6] = ["ledger_", "_sqlx", "pg_", "lo_", "dblink", "information_schema"];
/// Functions that change settings or run a text as a query.
const FUNCTIONS: [&str; 4] = ["set_config", "current_setting", "ts_stat", "ts_rewrite"];
/// What a query begins with.
const BEGINNINGS: [&str; 4] = ["select", "with", "values", "table"];
/// Longest text of one cell.
const MOST_CELL_BYTES: usize = 16 << 20;
/// Longest result.
const MOST_BYTES: usize = 64 << 20;
/// How much later than the server this side gives up.
const SLACK: Duration = Duration::from_secs(2);

pub(crate) async fn select(
    ledger: &LedgerReader,
    tenant: &str,
    query: &str,
    limits: SqlLimits,
) -> Result<SqlTable, StoreError> {
    let url = ledger.reader_url.as_deref().ok_or(StoreError::NoReader)?;
    refuse(query)?;
    let options = crate::ledger::parse_url(url)?
        .application_name("spectemp sql")
        .options([("default_transaction_read_only", "on"), ("jit", "off")])
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(StoreError::database("open for a query"))?;
    bind(ledger, &mut connection, tenant).await?;
    let run = run(&mut connection, tenant, query.trim_end().trim_end_matches(';'), limits);
    let table = tokio::time::timeout(limits.timeout + SLACK, run).await;
    // Never used again. Where it is still at work it ends by its own time limit.
    drop(connection);
    table.unwrap_or(Err(StoreError::SqlTimeout { seconds: limits.timeout.as_secs_f64() }))
}

/// Ties the connection's backend to the tenant, by the owner's hand.
async fn bind(ledger: &LedgerReader, connection: &mut PgConnection, tenant: &str) -> Result<(), StoreError> {
    let fail = || StoreError::database("bind a query to its tenant");
    let Pool::Postgres(owner) = &ledger.reads else { return Err(StoreError::NoReader) };
    let (pid, started): (i32, Option<i64>) = sqlx::query_as(
        "select pg_backend_pid(), cast(extract(epoch from backend_start) * 1000000 as bigint) \
         from pg_stat_get_activity(pg_backend_pid())",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(fail())?;
    sqlx::query(
        "with gone as (delete from ledger_reader_sessions s where s.pid <> $1 \
         and not exists (select 1 from pg_stat_activity a where a.pid = s.pid)) \
         insert into ledger_reader_sessions (pid, started_us, tenant) values ($1, $2, $3) \
         on conflict (pid) do update set started_us = excluded.started_us, tenant = excluded.tenant",
    )
    .bind(pid)
    .bind(started)
    .bind(tenant)
    .execute(owner)
    .await
    .map_err(fail())?;
    Ok(())
}

async fn run(
    connection: &mut PgConnection,
    tenant: &str,
    query: &str,
    limits: SqlLimits,
) -> Result<SqlTable, StoreError> {
    let mut transaction = connection
        .begin_with("begin isolation level repeatable read read only")
        .await
        .map_err(StoreError::database("begin a query"))?;
    let bound: Option<String> = sqlx::query_scalar("select ledger_reader_tenant()")
        .fetch_one(&mut *transaction)
        .await
        .map_err(StoreError::database("bind a query to its tenant"))?;
    if bound.as_deref() != Some(tenant) {
        let cause = "the session is not the tenant's: --reader-url must name the ledger's own database, directly, not \
                     through a pooler";
        return Err(StoreError::Database { what: "bind a query to its tenant", cause: cause.to_owned() });
    }
    let explain = |error| explain(error, limits);
    // Only from here on: what went before is not the question's.
    let timeout = format!("set local statement_timeout = {}", limits.timeout.as_millis().max(1));
    transaction.execute(AssertSqlSafe(timeout)).await.map_err(explain)?;
    let columns = describe(&mut transaction, query).await.map_err(explain)?;
    if columns.is_empty() {
        return Err(StoreError::SqlDenied { what: "change anything".to_owned() });
    }
    let mut table = SqlTable {
        columns: columns.iter().map(|(name, _)| name.clone()).collect(),
        rows: Vec::new(),
        truncated: false,
    };
    let statement = AssertSqlSafe(wrapped(query, &columns, limits.rows));
    let mut rows = sqlx::query(statement).persistent(false).fetch(&mut *transaction);
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await.map_err(explain)? {
        if table.rows.len() == limits.rows {
            table.truncated = true;
            break;
        }
        let cells: Vec<Value> = columns
            .iter()
            .enumerate()
            .map(|(index, (_, kind))| cell(&row, index, kind))
            .collect::<Result<_, _>>()
            .map_err(explain)?;
        for cell in &cells {
            let length = cell.as_str().map_or(8, str::len);
            bytes += length;
            if length > MOST_CELL_BYTES || bytes > MOST_BYTES {
                let limit = "a cell may have 16 MiB and a result 64 MiB: select fewer columns or rows";
                return Err(StoreError::Sql(limit.to_owned()));
            }
        }
        table.rows.push(cells);
    }
    Ok(table)
}

/// Names and types of the columns. The server parses the text as one statement here; two are an error.
async fn describe(connection: &mut PgConnection, query: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
    let statement = connection.prepare(AssertSqlSafe(query.to_owned()).into_sql_str()).await?;
    let column = |column: &sqlx::postgres::PgColumn| {
        (column.name().to_owned(), column.type_info().name().to_ascii_uppercase())
    };
    Ok(statement.columns().iter().map(column).collect())
}

/// The query inside of one that gives few types and no more rows than wanted.
fn wrapped(query: &str, columns: &[(String, String)], rows: usize) -> String {
    let names: Vec<String> = (0..columns.len()).map(|index| format!("c{index}")).collect();
    let casts: Vec<String> = names
        .iter()
        .zip(columns)
        .map(|(name, (_, kind))| match kind.as_str() {
            "INT2" | "INT4" | "INT8" | "OID" => format!("{name}::int8"),
            "FLOAT4" | "FLOAT8" => format!("{name}::float8"),
            "BOOL" => name.clone(),
            "TIMESTAMPTZ" => {
                format!("to_char({name} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
            }
            "BYTEA" => format!("substr(encode({name}, 'hex'), 1, {})", MOST_CELL_BYTES + 1),
            _ => format!("substr({name}::text, 1, {})", MOST_CELL_BYTES + 1),
        })
        .collect();
    // The line break ends a comment in the query's last line.
    format!("select {} from (\n{query}\n) as q ({}) limit {}", casts.join(", "), names.join(", "), rows + 1)
}

fn cell(row: &PgRow, index: usize, kind: &str) -> Result<Value, sqlx::Error> {
    Ok(match kind {
        "INT2" | "INT4" | "INT8" | "OID" => row.try_get::<Option<i64>, _>(index)?.into(),
        "FLOAT4" | "FLOAT8" => row.try_get::<Option<f64>, _>(index)?.into(),
        "BOOL" => row.try_get::<Option<bool>, _>(index)?.into(),
        "NUMERIC" => row.try_get::<Option<String>, _>(index)?.map_or(Value::Null, |text| number(&text)),
        _ => row.try_get::<Option<String>, _>(index)?.into(),
    })
}

/// A `numeric`: sums and averages are such.
fn number(text: &str) -> Value {
    let whole = text.parse::<i64>().ok().map(Number::from);
    let real = || text.parse::<f64>().ok().and_then(Number::from_f64);
    whole.or_else(real).map_or(Value::Null, Value::Number)
}

fn explain(error: sqlx::Error, limits: SqlLimits) -> StoreError {
    let Some(told) = error.as_database_error() else { return StoreError::database("answer a query")(error) };
    match told.code().as_deref() {
        Some("57014") => StoreError::SqlTimeout { seconds: limits.timeout.as_secs_f64() },
        // Not granted; a write in a read-only transaction.
        Some("42501") => StoreError::SqlDenied { what: format!("do that ({})", told.message()) },
        Some("25006") => StoreError::SqlDenied { what: "change anything".to_owned() },
        Some(code) if code.starts_with("57P") || code.starts_with("08") => {
            StoreError::database("answer a query")(error)
        }
        _ => StoreError::Sql(told.message().to_owned()),
    }
}

fn refuse(query: &str) -> Result<(), StoreError> {
    let denied = |what: String| Err(StoreError::SqlDenied { what });
    let lower = query.to_lowercase();
    // `U&"\0070g…"` spells a name in another way.
    if lower.contains("u&\"") || lower.contains("u&'") {
        return denied("spell names or texts with U&".to_owned());
    }
    let word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$';
    for name in lower.split(|letter| !word(letter)) {
        let private = PRIVATE.iter().any(|private| name.starts_with(private));
        if private || FUNCTIONS.contains(&name) || name.contains("_to_xml") {
            return denied(format!("name {name}"));
        }
    }
    let begins = |text: &str| BEGINNINGS.iter().any(|word| text.starts_with(word));
    match first_word(&lower) {
        Some(first) if begins(first) || first.starts_with('(') => Ok(()),
        _ => denied("do anything but select".to_owned()),
    }
}

/// The text from its first word on, comments left out.
fn first_word(text: &str) -> Option<&str> {
    let mut rest = text.trim_start();
    loop {
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n')?.1.trim_start()
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/")?.1.trim_start()
        } else {
            return Some(rest);
        };
    }
}
