//! A fresh ledger on each database.

use spectemp_store::{Ledger, LedgerOptions, MigrateOptions, migrate};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

/// Another way to the same database, for what only a test does.
pub(crate) struct Raw {
    url: String,
    _dir: TempDir,
}

impl Raw {
    pub(crate) async fn execute(&self, text: &'static str) {
        if self.url.starts_with("postgres") {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
        }
    }
}

/// A SQLite ledger and a Postgres one.
pub(crate) async fn both() -> [(&'static str, Ledger, Raw); 2] {
    [sqlite().await, postgres().await]
}

async fn sqlite() -> (&'static str, Ledger, Raw) {
    let dir = crate::common::dir();
    let path = dir.path().join("ledger.sqlite");
    let ledger = Ledger::open(&path, &LedgerOptions::default()).await.unwrap();
    ("sqlite", ledger, Raw { url: format!("sqlite://{}", path.display()), _dir: dir })
}

async fn postgres() -> (&'static str, Ledger, Raw) {
    let (ledger, url) = postgres_with_url().await;
    ("postgres", ledger, raw(&url))
}

/// A Postgres ledger and its owner's URL.
pub(crate) async fn postgres_with_url() -> (Ledger, String) {
    let url = empty_database().await;
    migrate(&url, &MigrateOptions::default()).await.unwrap();
    let reader_url = Some(url.replace("postgres@", "spectemp_reader@"));
    let options = LedgerOptions { connections: 8, reader_url, ..LedgerOptions::default() };
    (Ledger::connect(&url, &options).await.unwrap(), url)
}

pub(crate) fn raw(url: &str) -> Raw {
    Raw { url: url.to_owned(), _dir: crate::common::dir() }
}

/// The URL of a database of its own.
pub(crate) async fn empty_database() -> String {
    let server = std::env::var("SPECTEMP_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "SPECTEMP_TEST_POSTGRES is not set: run `make test`, or `eval \"$(scripts/services.sh start)\"`"
        )
    });
    let name = format!("archive_{}", uuid::Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(&server).await.unwrap();
    let create = AssertSqlSafe(format!("create database {name}"));
    sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
    let (host, _) = server.rsplit_once('/').unwrap();
    format!("{host}/{name}")
}
