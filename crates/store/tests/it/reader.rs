//! SQL on Postgres: what the role `spectemp_reader` sees, and what it cannot get at.

use std::time::Duration;

use serde_json::{Value, json};
use spectemp_store::{
    Claim, DEFAULT_TENANT, Finished, Ledger, LedgerOptions, NewJob, ObjectKey, SqlLimits, StoreError,
    VideoRow,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    common::{FIRST_STAGES, first_stages, round, spec, trace},
    ledgers::postgres_with_url,
};

/// One answer each for two tenants, one failure of `acme`, and one waiting job of the default tenant.
async fn answered() -> (Ledger, String) {
    let (ledger, url) = postgres_with_url().await;
    for tenant in ["acme", "zeta"] {
        let answered = NewJob::from(spec(&format!("{tenant}-1"), &format!("/v/{tenant}.mp4")));
        ledger.submit_jobs(tenant, "b", &[answered]).await.unwrap();
        let claim = Claim {
            batch: None,
            worker: "w",
            limit: 1,
            prefer_video: None,
            lease: Some(Duration::from_secs(9)),
        };
        let claimed = ledger.claim(&claim).await.unwrap().remove(0);
        for no in 0..2 {
            ledger.checkpoint(&claimed.lease, &round(no)).await.unwrap();
        }
        let trace = trace(claimed.job.id, claimed.job.spec, vec![round(0), round(1)]);
        let key = ObjectKey::Trace { job: claimed.job.id, epoch: 1 };
        let finished = Finished {
            answer: &trace.answer,
            totals: &trace.totals,
            video: &trace.video,
            target: &trace.target,
            draft: trace.draft.as_ref(),
            trace: &key,
        };
        ledger.finish(claimed.lease, finished).await.unwrap();
        let video = VideoRow {
            uri: format!("/v/{tenant}.mp4"),
            etag: None,
            bytes: 77,
            duration_s: Some(64.0),
            probe: json!({"container": "mp4"}),
            record: vec![0; 9],
        };
        ledger.put_video(&video).await.unwrap();
    }
    ledger.submit_jobs("acme", "b", &[spec("acme-2", "/v/acme.mp4").into()]).await.unwrap();
    let claim = Claim { batch: None, worker: "w", limit: 1, prefer_video: None, lease: None };
    let claimed = ledger.claim(&claim).await.unwrap().remove(0);
    ledger.fail(claimed.lease, "404 not found", true).await.unwrap();
    ledger.submit("b", &[spec("own", "/v/own.mp4")]).await.unwrap();
    (ledger, url)
}

async fn rows(ledger: &Ledger, tenant: &str, query: &str) -> Vec<Vec<Value>> {
    ledger
        .sql(tenant, query, SqlLimits::default())
        .await
        .unwrap_or_else(|error| panic!("{query}: {error}"))
        .rows
}

#[tokio::test]
async fn each_tenant_sees_its_own_rows_in_each_view() {
    let (ledger, _url) = answered().await;
    for (view, of_acme) in [
        ("answers", 1),
        ("failures", 1),
        ("evidence", 2),
        ("rounds", 2),
        ("stages", 4),
        ("videos", 1),
        ("jobs_by_state", 2),
    ] {
        let query = format!("select tenant, count(*) from {view} group by tenant");
        assert_eq!(rows(&ledger, "acme", &query).await, [[json!("acme"), json!(of_acme)]], "{view}");
        assert!(rows(&ledger, "nobody", &query).await.is_empty(), "{view}");
    }
    assert_eq!(
        rows(&ledger, "acme", "select id, video, video_etag, video_s, question, choices, answer, choice, confidence, strategy, \
                               settings ->> 'dense_cap' as cap, start_s, frames_s, rounds, visual_tokens, decode_ms, target, attempts from answers").await,
        [[json!("acme-1"), json!("/v/acme.mp4"), json!("\"e1\""), json!(64.0), json!("what happens in acme-1"), json!("[\"red\", \"blue\"]"),
          json!("red"), json!("A"), json!(0.875), json!("spectemp"), json!("440"), json!(10.0), json!("[12.0, 14.0]"), json!(2),
          json!(128), json!(4.0), json!("target"), json!(1)]]
    );
    assert_eq!(
        rows(&ledger, "acme", "select id, error, permanent, rounds, crashes from failures").await,
        [[json!("acme-2"), json!("404 not found"), json!(1), json!(0), json!(0)]]
    );
    assert_eq!(
        rows(&ledger, "acme", "select span, start_s, frame, pts_s from evidence order by span, frame").await,
        [[json!(0), json!(10.0), json!(0), json!(12.0)], [json!(0), json!(10.0), json!(1), json!(14.0)]]
    );
    assert_eq!(
        rows(
            &ledger,
            "acme",
            "select round, verdict, next_end_s, json -> 'version' as v from rounds order by round"
        )
        .await,
        [
            [json!(0), json!("segment"), json!(20.0), json!("1")],
            [json!(1), json!("segment"), json!(20.0), json!("1")]
        ]
    );
    assert_eq!(json!(rows(&ledger, "acme", FIRST_STAGES).await), first_stages("acme-1"));
    assert_eq!(
        rows(
            &ledger,
            "acme",
            "select video, bytes, probe ->> 'container' as c, index_bytes, jobs from videos"
        )
        .await,
        [[json!("/v/acme.mp4"), json!(77), json!("mp4"), json!(9), json!(2)]]
    );
    assert_eq!(
        rows(&ledger, "acme", "select batch, state, jobs from jobs_by_state order by state").await,
        [[json!("b"), json!("answered"), json!(1)], [json!("b"), json!("failed"), json!(1)]]
    );
    let moment =
        rows(&ledger, "acme", "select answered_at from answers").await[0][0].as_str().unwrap().to_owned();
    assert!(moment.len() == 24 && moment.starts_with("20") && moment.ends_with('Z'), "{moment}");
}

#[tokio::test]
async fn usual_questions_are_allowed_and_types_are_few() {
    let (ledger, _url) = answered().await;
    for query in [
        "select count(*) from answers;",
        "-- a comment\nselect 1 /* another */ -- and one more",
        "with c as (select * from answers) select count(*) from c",
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5) select sum(i) from n",
        "select a.id, e.pts_s from answers a join evidence e using (job_id) where a.choice in (select choice from answers)",
        "select value from answers, jsonb_array_elements_text(answers.choices)",
        "select row_number() over (order by round) from rounds",
        "values (1), (2)",
        "table answers",
        "select * from videos, failures, evidence, rounds, stages, answers, jobs_by_state",
        "select 1 as same, 2 as same",
    ] {
        ledger
            .sql("acme", query, SqlLimits::default())
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"));
    }
    let query = "select 1.5::numeric as n, 6::numeric as whole, avg(confidence) as mean, true as yes, null as absent, '\\x0aff'::bytea as b, \
                 array[1, 2] as list, 'x' as text, sum(rounds) as rounds from answers";
    let table = ledger.sql("acme", query, SqlLimits::default()).await.unwrap();
    assert_eq!(table.columns, ["n", "whole", "mean", "yes", "absent", "b", "list", "text", "rounds"]);
    assert_eq!(
        table.rows,
        [[
            json!(1.5),
            json!(6),
            json!(0.875),
            json!(true),
            json!(null),
            json!("0aff"),
            json!("{1,2}"),
            json!("x"),
            json!(2)
        ]]
    );
    let few = SqlLimits { rows: 10, ..SqlLimits::default() };
    let table = ledger.sql("acme", "select generate_series(1, 100000000)", few).await.unwrap();
    assert_eq!((table.rows.len(), table.truncated), (10, true));
}

#[tokio::test]
async fn nothing_else_can_be_reached() {
    let (ledger, _url) = answered().await;
    for query in [
        "select * from ledger_jobs",
        "select hash from ledger_keys",
        "select webhook_secret from ledger_batches",
        "select * from pg_stat_activity",
        "select query from pg_catalog.pg_stat_activity",
        "select * from information_schema.tables",
        "select U&\"\\0070g_sleep\"(1)",
        "select query_to_xml('select * from answers', true, false, '')",
        "select * from ts_stat('select 1')",
        "select set_config('spectemp.tenant', 'zeta', false)",
        "select current_setting('is_superuser')",
        "select ledger_reader_tenant()",
        "select pg_sleep(1)",
        "select pg_read_file('/etc/passwd')",
        "select pg_terminate_backend(1)",
        "select pg_advisory_lock(1)",
        "select lo_import('/etc/passwd')",
        "set role postgres",
        "set session authorization postgres",
        "reset role",
        "begin",
        "commit",
        "copy answers to '/tmp/x'",
        "copy (select 1) to program 'id'",
        "explain analyze select 1",
        "insert into answers values (1)",
        "delete from answers",
        "update jobs_by_state set jobs = 0",
        "create table t (x integer)",
        "do $$ begin perform 1; end $$",
        "prepare x as select 1",
        "listen x",
    ] {
        match ledger.sql("acme", query, SqlLimits::default()).await {
            Err(StoreError::SqlDenied { .. }) => {}
            other => panic!("{query}: {other:?}"),
        }
    }
    for query in [
        "select 1; drop view answers",
        "select 1; select 2",
        "select 1) as q (c0) union all (select 2",
        "with gone as (delete from jobs_by_state returning 1) select * from gone",
        "select 1 where x = $1",
        "select nosuch from answers",
        "select * from answers for update",
        "select /* open",
    ] {
        let result = ledger.sql("acme", query, SqlLimits::default()).await;
        assert!(
            matches!(result, Err(StoreError::Sql(_) | StoreError::SqlDenied { .. })),
            "{query}: {result:?}"
        );
    }
    let endless =
        "with recursive n(i) as (select 1::bigint union all select i + 1 from n) select count(*) from n";
    // However short: the time is the question's, what prepares it has its own.
    for timeout in [Duration::from_nanos(1), Duration::from_millis(300)] {
        let limits = SqlLimits { timeout, ..SqlLimits::default() };
        let error = ledger.sql("acme", endless, limits).await.unwrap_err();
        assert!(matches!(error, StoreError::SqlTimeout { .. }), "{error}");
    }
    let error = ledger.sql("acme", "select repeat('x', 100000000)", SqlLimits::default()).await.unwrap_err();
    assert!(error.to_string().contains("16 MiB"), "{error}");
    assert_eq!(ledger.counts(None).await.unwrap().total(), 4, "nothing has changed");
}

/// Whose a row is stands in the row.
#[tokio::test]
async fn who_reads_many_rows_does_not_look_up_the_job_of_each() {
    let (_ledger, url) = answered().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    for table in ["ledger_rounds", "ledger_answers"] {
        let text = format!(
            "select distinct r.tenant, j.tenant from {table} r join ledger_jobs j on j.id = r.job_id"
        );
        let tenants: Vec<(String, String)> =
            sqlx::query_as(AssertSqlSafe(text)).fetch_all(&mut owner).await.unwrap();
        assert!(!tenants.is_empty() && tenants.iter().all(|(row, job)| row == job), "{table}: {tenants:?}");
        assert!(tenants.iter().any(|(row, _)| row != DEFAULT_TENANT), "{table}: {tenants:?}");
    }
    let mut reader = PgConnection::connect(&url.replace("postgres@", "spectemp_reader@")).await.unwrap();
    for view in ["answers", "evidence", "rounds"] {
        let explain = AssertSqlSafe(format!("explain select count(*) from {view}"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(&mut reader).await.unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains("tenant = ") && !plan.contains("SubPlan"), "{view}: {plan}");
    }
}

/// The role's own fences, without the program's look at the text: a login in `psql`.
#[tokio::test]
async fn a_login_of_the_role_has_one_tenant_and_cannot_change_it() {
    let (ledger, url) = answered().await;
    let reader_url = url.replace("postgres@", "spectemp_reader@");
    let mut reader = PgConnection::connect(&reader_url).await.unwrap();
    let jobs = "select coalesce(string_agg(distinct tenant, ','), '') from jobs_by_state";
    let seen: String = sqlx::query_scalar(jobs).fetch_one(&mut reader).await.unwrap();
    assert_eq!(seen, DEFAULT_TENANT);

    for attack in [
        "select set_config('spectemp.tenant', 'acme', false)",
        "select set_config('role', 'postgres', false)",
        "set role postgres",
        "set session authorization postgres",
        "set row_security = off",
        "insert into ledger_reader_sessions values (pg_backend_pid(), 0, 'acme')",
        "update ledger_reader_roles set tenant = 'acme'",
        "set default_transaction_read_only = off; update ledger_reader_roles set tenant = 'acme'",
        "create function pg_temp.ledger_reader_tenant() returns text language sql as 'select ''acme'''",
        "create or replace function ledger_reader_tenant() returns text language sql as 'select ''acme'''",
        "set search_path = pg_temp, public",
        "drop policy reader on ledger_jobs",
        "alter table ledger_jobs disable row level security",
        "select query_to_xml('select * from ledger_reader_roles', true, false, '')",
        "select fingerprint from ledger_jobs",
        "select * from ledger_batches",
        "select * from ledger_reader_sessions",
        "create role mine superuser",
        "create table mine (x integer)",
        "copy answers to program 'id'",
    ] {
        // Some succeed and do nothing; none may open a door.
        let _ = sqlx::raw_sql(attack).execute(&mut reader).await;
        for view in ["answers", "failures", "evidence", "rounds", "videos", "ledger_rounds", "ledger_videos"]
        {
            let count = AssertSqlSafe(format!("select count(*) from {view}"));
            match sqlx::query_scalar::<_, i64>(count).fetch_one(&mut reader).await {
                Ok(rows) => assert_eq!(rows, 0, "{view} after {attack}"),
                Err(error) => assert!(attack.contains("row_security"), "{view} after {attack}: {error}"),
            }
        }
        let _ = sqlx::raw_sql("reset all").execute(&mut reader).await;
    }
    let secret = sqlx::raw_sql("select webhook_secret from ledger_batches").execute(&mut reader).await;
    assert!(secret.unwrap_err().to_string().contains("permission denied"));
    let timeout: String = sqlx::query_scalar("show statement_timeout").fetch_one(&mut reader).await.unwrap();
    assert_eq!(timeout, "1min");
    let read_only: String =
        sqlx::query_scalar("show transaction_read_only").fetch_one(&mut reader).await.unwrap();
    assert_eq!(read_only, "on");

    // A binding belongs to its backend, not to a later one that has its process id.
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut reader).await.unwrap();
    sqlx::query("insert into ledger_reader_sessions values ($1, 1, 'acme')")
        .bind(pid)
        .execute(&mut owner)
        .await
        .unwrap();
    let seen: String = sqlx::query_scalar(jobs).fetch_one(&mut reader).await.unwrap();
    assert_eq!(seen, DEFAULT_TENANT);
    // And sessions of queries that have ended are forgotten by the next one.
    for _ in 0..2 {
        ledger.sql("acme", "select 1", SqlLimits::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let kept: i64 = sqlx::query_scalar("select count(*) from ledger_reader_sessions where pid <> $1")
        .bind(pid)
        .fetch_one(&mut owner)
        .await
        .unwrap();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn without_the_readers_login_there_is_no_sql() {
    let (ledger, url) = answered().await;
    ledger.close().await;
    let ledger = Ledger::connect(&url, &LedgerOptions::default()).await.unwrap();
    let error = ledger.sql(DEFAULT_TENANT, "select 1", SqlLimits::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::NoReader), "{error}");
    assert!(error.to_string().contains("--reader-url"));
}

#[tokio::test]
async fn the_server_explains_what_runs_for_every_job_and_what_a_reader_asks() {
    let (ledger, _url) = answered().await;
    let before = ledger.counts(None).await.unwrap();
    let explained = ledger.explain().await.unwrap();
    for (name, table) in [
        ("claim: the best job", "ledger_jobs"),
        ("checkpoint: the guard of the insert", "ledger_rounds"),
        ("view: the newest answers", "ledger_answers"),
        ("view: the rounds of a question", "ledger_rounds"),
    ] {
        let found = explained.iter().find(|explained| explained.name == name);
        let plan = &found.unwrap_or_else(|| panic!("{name} is missing: {explained:?}")).plan;
        assert!(plan.contains(table) && plan.contains("actual"), "{name}: {plan}");
    }
    // As a reader: what it sees is filtered by its tenant.
    let views: Vec<_> = explained.iter().filter(|explained| explained.name.starts_with("view")).collect();
    assert!(views.len() >= 4 && views.iter().all(|view| view.plan.contains("tenant = ")), "{views:?}");
    assert_eq!(ledger.counts(None).await.unwrap(), before, "all of it is undone");
    assert!(rows(&ledger, "nobody", "select * from answers").await.is_empty(), "its tenant, too");
}
