//! One ledger on two databases: a statement is written once, with `$1 …`, and runs on SQLite and on Postgres.
//!
//! What truly differs is spelt as a token in the text (`{now}`, `{skip_locked}` …, see `dialect.rs`). Times are taken
//! from the database's clock, never from the caller's: workers' clocks differ. An id is a `uuid` in Postgres and its
//! text in SQLite.

mod dialect;
mod query;
mod row;
mod value;

use sqlx::{PgPool, SqlitePool};

pub(crate) use dialect::spell;
pub(crate) use query::{On, Query, query};
pub(crate) use row::Row;
pub(crate) use value::Value;

use crate::{LedgerKind, StoreError};

/// Connections to one database.
#[derive(Clone, Debug)]
pub(crate) enum Pool {
    /// A file.
    Sqlite(SqlitePool),
    /// A server.
    Postgres(PgPool),
}

/// An open transaction; dropped without [`Transaction::commit`] it is rolled back.
pub(crate) enum Transaction {
    /// Begun with `begin immediate`: it holds the one write lock.
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    /// `read committed`, so rows that are decided upon are locked.
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Pool {
    pub(crate) fn kind(&self) -> LedgerKind {
        match self {
            Self::Sqlite(_) => LedgerKind::Sqlite,
            Self::Postgres(_) => LedgerKind::Postgres,
        }
    }

    /// Begins a transaction that writes.
    pub(crate) async fn begin(&self, what: &'static str) -> Result<Transaction, StoreError> {
        match self {
            Self::Sqlite(pool) => pool.begin_with("begin immediate").await.map(Transaction::Sqlite),
            Self::Postgres(pool) => pool.begin().await.map(Transaction::Postgres),
        }
        .map_err(StoreError::database(what))
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Transaction {
    pub(crate) fn kind(&self) -> LedgerKind {
        match self {
            Self::Sqlite(_) => LedgerKind::Sqlite,
            Self::Postgres(_) => LedgerKind::Postgres,
        }
    }

    pub(crate) async fn commit(self, what: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        }
        .map_err(StoreError::database(what))
    }
}
