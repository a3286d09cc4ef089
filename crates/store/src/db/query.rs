//! One statement with its values.

use std::borrow::Cow;

use sqlx::{
    AssertSqlSafe, Postgres, Sqlite, postgres::PgArguments, query::Query as SqlxQuery,
    sqlite::SqliteArguments,
};

use super::{
    Pool, Row, Transaction,
    dialect::spell,
    value::{PgJson, PgJsonb, Value, clean_json, clean_text},
};
use crate::{LedgerKind, StoreError};

/// How often a statement of its own is tried again after Postgres ended it to break a deadlock.
const TRIES: u32 = 5;

/// A statement; nothing runs until one of its last four methods is called.
#[must_use = "a statement does nothing until it is run"]
pub(crate) struct Query {
    what: &'static str,
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// The statement `text`, whose failure is told as "ledger failed to `what`".
pub(crate) fn query(what: &'static str, text: impl Into<Cow<'static, str>>) -> Query {
    Query { what, text: text.into(), values: Vec::new() }
}

/// Where a statement runs.
pub(crate) enum On<'a> {
    Pool(&'a Pool),
    Transaction(&'a mut Transaction),
}

impl<'a> From<&'a Pool> for On<'a> {
    fn from(pool: &'a Pool) -> Self {
        Self::Pool(pool)
    }
}

impl<'a> From<&'a mut Transaction> for On<'a> {
    fn from(transaction: &'a mut Transaction) -> Self {
        Self::Transaction(transaction)
    }
}

/// Runs `$method` on whichever database it is; `$sqlite` and `$postgres` make its result one type.
macro_rules! run {
    ($query:expr, $on:expr, $method:ident, $sqlite:expr, $postgres:expr) => {{
        let what = $query.what;
        match $on {
            On::Pool(Pool::Sqlite(pool)) => $query.sqlite().$method(pool).await.map($sqlite),
            On::Pool(Pool::Postgres(pool)) => {
                let mut tries = 1;
                loop {
                    match $query.postgres().$method(pool).await {
                        // It was undone as a whole, so it can be repeated.
                        Err(error) if tries < TRIES && is_deadlock(&error) => tries += 1,
                        result => break result.map($postgres),
                    }
                }
            }
            On::Transaction(Transaction::Sqlite(transaction)) => {
                $query.sqlite().$method(&mut **transaction).await.map($sqlite)
            }
            On::Transaction(Transaction::Postgres(transaction)) => {
                $query.postgres().$method(&mut **transaction).await.map($postgres)
            }
        }
        .map_err(StoreError::database(what))
    }};
}

impl Query {
    /// Binds the next of `$1`, `$2` …
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; how many rows it touched.
    pub(crate) async fn execute(self, on: impl Into<On<'_>>) -> Result<u64, StoreError> {
        let on = on.into();
        run!(self, on, execute, |done| done.rows_affected(), |done| done.rows_affected())
    }

    /// All rows.
    pub(crate) async fn all(self, on: impl Into<On<'_>>) -> Result<Vec<Row>, StoreError> {
        let on = on.into();
        run!(self, on, fetch_all, |rows| rows.into_iter().map(Row::Sqlite).collect(), |rows| rows
            .into_iter()
            .map(Row::Postgres)
            .collect())
    }

    /// The first row, if there is one.
    pub(crate) async fn optional(self, on: impl Into<On<'_>>) -> Result<Option<Row>, StoreError> {
        let on = on.into();
        run!(self, on, fetch_optional, |row| row.map(Row::Sqlite), |row| row.map(Row::Postgres))
    }

    /// The one row.
    pub(crate) async fn one(self, on: impl Into<On<'_>>) -> Result<Row, StoreError> {
        let on = on.into();
        run!(self, on, fetch_one, Row::Sqlite, Row::Postgres)
    }

    fn sqlite(&self) -> SqlxQuery<'static, Sqlite, SqliteArguments> {
        let query = sqlx::query(AssertSqlSafe(spell(&self.text, LedgerKind::Sqlite)));
        self.values.iter().cloned().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Int(number) => query.bind(number),
            Value::Real(number) => query.bind(number),
            Value::Bool(truth) => query.bind(truth),
            Value::Blob(bytes) => query.bind(bytes),
            Value::Id(id) => query.bind(id.to_string()),
            Value::Jsonb(json) => query.bind(json),
            Value::Json(json) => query.bind(json),
        })
    }

    fn postgres(&self) -> SqlxQuery<'static, Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(spell(&self.text, LedgerKind::Postgres)));
        self.values.iter().cloned().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text.map(clean_text)),
            Value::Int(number) => query.bind(number),
            Value::Real(number) => query.bind(number),
            Value::Bool(truth) => query.bind(truth),
            Value::Blob(bytes) => query.bind(bytes),
            Value::Id(id) => query.bind(id),
            Value::Jsonb(json) => query.bind(json.map(|json| PgJsonb(clean_json(json)))),
            Value::Json(json) => query.bind(PgJson(clean_json(json))),
        })
    }
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    const ENDED: [&str; 2] = ["40P01", "40001"];
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| ENDED.contains(&code.as_ref()))
}
