//! SQL from outside: what it may, what it may not, and what it finds.

use std::time::{Duration, Instant};

use serde_json::json;
use spectemp_store::{DEFAULT_TENANT, Home, SqlLimits, StoreError, VIEWS, VideoRow};

use crate::common::{FIRST_STAGES, answer, claim, first_stages, home, spec};

async fn answered() -> (tempfile::TempDir, Home) {
    let (dir, home) = home().await;
    home.ledger().submit("b", &[spec("q1", "/v/a.mp4"), spec("q2", "/v/a.mp4")]).await.unwrap();
    let mut claimed = claim(&home, "b", 2).await;
    answer(&home, claimed.remove(0)).await;
    home.ledger().fail(claimed.remove(0).lease, "404 not found", true).await.unwrap();
    let video = VideoRow {
        uri: "/v/a.mp4".into(),
        etag: None,
        bytes: 77,
        duration_s: Some(64.0),
        probe: json!({"container": "mp4"}),
        record: vec![0; 9],
    };
    home.ledger().put_video(&video).await.unwrap();
    (dir, home)
}

async fn rows(home: &Home, query: &str) -> Vec<Vec<serde_json::Value>> {
    home.ledger().sql(DEFAULT_TENANT, query, SqlLimits::default()).await.unwrap().rows
}

#[tokio::test]
async fn the_views_say_what_happened() {
    let (_dir, home) = answered().await;
    assert_eq!(
        rows(&home, "select id, batch, video, video_etag, video_s, question, choices, answer, choice, confidence from answers").await,
        [vec![json!("q1"), json!("b"), json!("/v/a.mp4"), json!("\"e1\""), json!(64.0), json!("what happens in q1"),
            json!("[\"red\",\"blue\"]"), json!("red"), json!("A"), json!(0.875)]]
    );
    assert_eq!(
        rows(&home, "select plan, strategy, settings ->> 'dense_cap', start_s, end_s, frames_s, rounds, target_frames, draft_frames, \
                     visual_tokens, bytes, decode_ms, target, draft_revision from answers").await,
        [vec![json!("demo"), json!("spectemp"), json!(440), json!(10.0), json!(20.0), json!("[12.0,14.0]"), json!(2), json!(4), json!(5),
            json!(128), json!(2000), json!(4.0), json!("target"), json!("r2")]]
    );
    assert_eq!(
        rows(&home, "select id, error, permanent, rounds from failures").await,
        [vec![json!("q2"), json!("404 not found"), json!(1), json!(0)]]
    );
    assert_eq!(
        rows(&home, "select id, span, start_s, end_s, frame, pts_s from evidence order by span, frame").await,
        [
            vec![json!("q1"), json!(0), json!(10.0), json!(20.0), json!(0), json!(12.0)],
            vec![json!("q1"), json!(0), json!(10.0), json!(20.0), json!(1), json!(14.0)]
        ]
    );
    assert_eq!(
        rows(&home, "select round, chosen_by, target_frames, draft_frames, dense_fps, verdict, next_end_s, generated_tokens, requests, \
                     generate_ms from rounds order by round").await,
        [vec![json!(0), json!("uniform"), json!(2), json!(0), json!(null), json!("segment"), json!(20.0), json!(7), json!(3), json!(5.0)],
         vec![json!(1), json!("draft"), json!(2), json!(5), json!(0.5), json!("segment"), json!(20.0), json!(7), json!(3), json!(5.0)]]
    );
    assert_eq!(json!(rows(&home, FIRST_STAGES).await), first_stages("q1"));
    assert_eq!(
        rows(
            &home,
            "select video, etag, bytes, video_s, probe ->> 'container', index_bytes, jobs from videos"
        )
        .await,
        [vec![json!("/v/a.mp4"), json!(null), json!(77), json!(64.0), json!("mp4"), json!(9), json!(2)]]
    );
    for column in ["created_at", "answered_at"] {
        let value =
            rows(&home, &format!("select {column} from answers")).await[0][0].as_str().unwrap().to_owned();
        assert!(value.starts_with("20") && value.ends_with('Z'), "{value}");
    }
}

#[tokio::test]
async fn usual_questions_are_allowed() {
    let (_dir, home) = answered().await;
    for query in [
        "select count(*) from answers",
        "select avg(confidence), strategy from answers group by strategy having count(*) > 0 order by 1 limit 3",
        "with c as (select * from answers) select count(*) from c",
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5) select sum(i) from n",
        "select a.id, e.pts_s from answers a join evidence e using (job_id) where a.choice in (select choice from answers)",
        "select value from answers, json_each(answers.choices)",
        "select row_number() over (order by round) from rounds",
        "select (select count(*) from failures), sqlite_version(), upper('ledger')",
        "select x'0aff' as blob, 1.5 as real, null as absent, 'text' as text",
        "values (1), (2)",
        "select * from videos, failures, evidence, rounds, answers",
    ] {
        home.ledger()
            .sql(DEFAULT_TENANT, query, SqlLimits::default())
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"));
    }
    let table = home
        .ledger()
        .sql(DEFAULT_TENANT, "select x'0aff' as blob, 1.5 as real, null as absent", SqlLimits::default())
        .await
        .unwrap();
    assert_eq!(table.columns, ["blob", "real", "absent"]);
    assert_eq!(table.rows, [[json!("0aff"), json!(1.5), json!(null)]]);
    let none = home
        .ledger()
        .sql(DEFAULT_TENANT, "select id, answer from answers where 0", SqlLimits::default())
        .await
        .unwrap();
    assert_eq!(none.columns, ["id", "answer"]);
}

#[tokio::test]
async fn everything_else_is_refused_and_the_views_are_named() {
    let (_dir, home) = answered().await;
    for query in [
        "select * from ledger_jobs",
        "select count(*) from ledger_jobs",
        "select * from \"ledger_jobs\"",
        "select * from 'ledger_jobs'",
        "select * from [Ledger_Jobs]",
        "select * from main.ledger_rounds",
        "select * from sqlite_master",
        "select count(*) from sqlite_schema",
        "select * from pragma_table_info('answers')",
        "select * from _sqlx_migrations",
        // A common table expression that borrows a view's name looks to the authorizer like the view's own reads.
        "with answers as (select * from ledger_jobs) select * from answers",
        "with evidence as (select * from sqlite_master) select count(*) from evidence",
        "select id from answers union select id from ledger_jobs",
        "attach database '/tmp/other.sqlite' as other",
        "attach database ':memory:' as other",
        "pragma journal_mode",
        "pragma query_only = 0",
        "insert into answers values (1)",
        "delete from ledger_answers",
        "update ledger_jobs set status = 'queued'",
        "drop view answers",
        "create table t (x)",
        "create temp table t (x)",
        "create temp view answers2 as select 1",
        "begin immediate",
        "vacuum into '/tmp/copy.sqlite'",
        "select load_extension('/tmp/x.so')",
        "select zeroblob(1000000000)",
        "select 1; drop table ledger_jobs",
        "select id from answers; delete from answers",
    ] {
        match home.ledger().sql(DEFAULT_TENANT, query, SqlLimits::default()).await {
            Err(error @ StoreError::SqlDenied { .. }) => {
                assert!(VIEWS.iter().all(|view| error.to_string().contains(view)), "{error}");
            }
            other => panic!("{query}: {other:?}"),
        }
    }
    assert_eq!(home.ledger().counts(None).await.unwrap().total(), 2);
}

#[tokio::test]
async fn mistakes_are_explained() {
    let (_dir, home) = answered().await;
    for (query, part) in [
        ("select colour from answers", "colour"),
        ("selec", "syntax error"),
        ("select * from nowhere", "nowhere"),
    ] {
        let error = home.ledger().sql(DEFAULT_TENANT, query, SqlLimits::default()).await.unwrap_err();
        assert!(matches!(error, StoreError::Sql(_)) && error.to_string().contains(part), "{query}: {error}");
    }
}

#[tokio::test]
async fn time_and_rows_have_limits() {
    let (_dir, home) = answered().await;
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
    let limits = SqlLimits { timeout: Duration::from_millis(200), rows: 10 };
    let start = Instant::now();
    let error = home.ledger().sql(DEFAULT_TENANT, endless, limits).await.unwrap_err();
    assert!(matches!(error, StoreError::SqlTimeout { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));

    let many =
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100) select i from n";
    let table = home.ledger().sql(DEFAULT_TENANT, many, limits).await.unwrap();
    assert_eq!((table.rows.len(), table.truncated), (10, true));
    let table = home.ledger().sql(DEFAULT_TENANT, "select 1", SqlLimits { rows: 1, ..limits }).await.unwrap();
    assert_eq!((table.rows.len(), table.truncated), (1, false));
}
