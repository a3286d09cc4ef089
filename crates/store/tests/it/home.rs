//! Who may open a home, and which ledgers.

use std::{path::Path, time::Duration};

use spectemp_store::{DEFAULT_TENANT, Home, StoreError};
use spectemp_types::JobId;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::common::{answer, claim, dir, home, spec};

async fn raw(dir: &Path) -> SqliteConnection {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(dir.join("ledger.sqlite")))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_second_holder_is_told_who_or_waits() {
    let (dir, home) = home().await;
    let error = Home::open(dir.path(), false).await.unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    let path = dir.path().to_owned();
    let waiting = tokio::spawn(async move { Home::open(&path, true).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    home.close().await;
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn readers_see_what_the_holder_commits() {
    let (dir, home) = home().await;
    let reader = Home::open_reader(dir.path()).await.unwrap();
    home.ledger().submit("b", &[spec("q1", "/v/a.mp4")]).await.unwrap();
    let claimed = claim(&home, "b", 1).await.remove(0);
    let job = claimed.job.id;
    answer(&home, claimed).await;
    assert_eq!(reader.ledger().counts(None).await.unwrap().answered, 1);
    let row = reader.ledger().answer(job).await.unwrap().unwrap();
    let trace = reader.objects().trace(job, row.epoch).await.unwrap().unwrap();
    assert_eq!(trace.answer, row.answer);
    assert_eq!(trace.rounds, reader.ledger().rounds(job).await.unwrap());
    // And after the holder is gone.
    home.close().await;
    let later = Home::open_reader(dir.path()).await.unwrap();
    assert_eq!(later.ledger().counts(None).await.unwrap().answered, 1);
}

#[tokio::test]
async fn there_is_nothing_to_read_in_an_empty_folder() {
    let dir = dir();
    assert!(matches!(Home::open_reader(dir.path()).await, Err(StoreError::NoHome { .. })));
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "reading makes nothing");
}

#[tokio::test]
async fn a_newer_ledger_is_refused_by_all() {
    let (dir, home) = home().await;
    home.close().await;
    sqlx::raw_sql(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'later', 1, x'00', 0)",
    )
    .execute(&mut raw(dir.path()).await)
    .await
    .unwrap();
    for error in [Home::open(dir.path(), false).await.err(), Home::open_reader(dir.path()).await.err()] {
        let error = error.unwrap();
        assert!(matches!(error, StoreError::Newer { found: 9999, .. }), "{error}");
        assert!(error.to_string().contains("use a newer spectemp"));
    }
}

#[tokio::test]
async fn an_older_ledger_is_upgraded_by_whoever_comes() {
    let dir = dir();
    std::fs::create_dir(dir.path().join("objects")).unwrap();
    let first =
        SqliteConnectOptions::new().filename(dir.path().join("ledger.sqlite")).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(first).await.unwrap();
    sqlx::migrate!("../../migrations/sqlite").run_to(1, &pool).await.unwrap();
    sqlx::query(
        "insert into ledger_jobs (id, batch, user_id, fingerprint, spec, video_uri, created_at) \
         values ($1, 'b', 'q1', x'00', $2, '/v/a.mp4', 0)",
    )
    .bind(JobId::new().to_string())
    .bind(serde_json::to_string(&spec("q1", "/v/a.mp4")).unwrap())
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;

    let reader = Home::open_reader(dir.path()).await.unwrap();
    assert_eq!(reader.ledger().counts(None).await.unwrap().queued, 1);
    assert!(
        reader
            .ledger()
            .sql(DEFAULT_TENANT, "select * from answers", Default::default())
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    let home = Home::open(dir.path(), false).await.unwrap();
    answer(&home, claim(&home, "b", 1).await.remove(0)).await;
    assert_eq!(reader.ledger().counts(None).await.unwrap().answered, 1);
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_an_error() {
    let dir = dir();
    std::fs::write(
        dir.path().join("ledger.sqlite"),
        "this is no database, but a long enough text to look at it".repeat(20),
    )
    .unwrap();
    assert!(matches!(Home::open(dir.path(), false).await, Err(StoreError::Database { .. })));
    assert!(matches!(Home::open_reader(dir.path()).await, Err(StoreError::Database { .. })));
}
