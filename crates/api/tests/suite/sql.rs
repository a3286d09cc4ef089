use arrow_array::{
    RecordBatch,
    cast::AsArray as _,
    types::{Float64Type, Int64Type},
};
use arrow_ipc::reader::StreamReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use reqwest::{Method, header};
use serde_json::json;
use spectemp_api::Settings;
use spectemp_store::SqlLimits;

use super::support::{Server, lines, open, send, with};

async fn answered() -> Server {
    let server = open().await;
    server.lines("/api/v1/batches?name=b", lines(3)).await.expect(201);
    for text in ["one", "two, or \"more\""] {
        server.answer_next(text).await;
    }
    server
}

#[tokio::test]
async fn a_query_is_answered_in_four_forms() {
    let server = answered().await;
    let query = json!({"query": "select id, answer, confidence, rounds, choice from answers order by id"});
    let reply = server.post("/api/v1/sql", &query).await;
    assert_eq!(reply.headers["x-truncated"], "false");
    assert_eq!(
        reply.expect(200),
        json!({
            "columns": ["id", "answer", "confidence", "rounds", "choice"],
            "rows": [["q0", "one", 0.75, 1, null], ["q1", "two, or \"more\"", 0.75, 1, null]],
            "truncated": false
        })
    );
    let ask = |accept: &str| {
        server.request(Method::POST, "/api/v1/sql").header(header::ACCEPT, accept).json(&query)
    };
    let csv = send(ask("text/csv")).await;
    assert_eq!(
        csv.text,
        "id,answer,confidence,rounds,choice\nq0,one,0.75,1,\nq1,\"two, or \"\"more\"\"\",0.75,1,\n"
    );
    for accept in ["application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"] {
        let response = ask(accept).send().await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], accept);
        let body = response.bytes().await.unwrap();
        let batches: Vec<RecordBatch> = if accept.ends_with("parquet") {
            let reader = ParquetRecordBatchReaderBuilder::try_new(body).unwrap().build().unwrap();
            reader.map(Result::unwrap).collect()
        } else {
            StreamReader::try_new(&body[..], None).unwrap().map(Result::unwrap).collect()
        };
        let [batch] = &batches[..] else { panic!("{accept}: {batches:?}") };
        let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["id", "answer", "confidence", "rounds", "choice"], "{accept}");
        let texts = |column: usize| batch.column(column).as_string::<i32>().iter().collect::<Vec<_>>();
        assert_eq!(texts(0), [Some("q0"), Some("q1")], "{accept}");
        assert_eq!(texts(1), [Some("one"), Some("two, or \"more\"")], "{accept}");
        assert_eq!(batch.column(2).as_primitive::<Float64Type>().values()[..], [0.75, 0.75], "{accept}");
        assert_eq!(batch.column(3).as_primitive::<Int64Type>().values()[..], [1, 1], "{accept}");
        assert_eq!(texts(4), [None, None], "{accept}");
    }
    send(ask("image/png")).await.problem(406, "not-acceptable");
}

#[tokio::test]
async fn a_query_reads_the_views_and_nothing_else() {
    let server = answered().await;
    for query in [
        "select * from ledger_jobs",
        "select * from ledger_keys",
        "delete from answers",
        "drop view answers",
        "pragma table_info(answers)",
        "attach 'x' as y",
        "selec",
        "",
        "select '\u{0}'",
    ] {
        let reply = server.post("/api/v1/sql", &json!({"query": query})).await;
        assert_eq!(reply.status, 422, "{query}: {reply:?}");
        reply.problem(422, "invalid");
    }
    server.post("/api/v1/sql", &json!({"query": "select 1", "limit": 0})).await.problem(422, "invalid");
    server.post("/api/v1/sql", &json!({"query": "select 1", "timeout_s": -1})).await.problem(422, "invalid");
    server.post("/api/v1/sql", &json!({"sql": "select 1"})).await.problem(422, "invalid");
}

#[tokio::test]
async fn time_and_rows_are_limited() {
    let sql = SqlLimits { timeout: std::time::Duration::from_millis(300), rows: 10 };
    let server = with(Settings { open: true, sql, ..Settings::default() }).await;
    let many =
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100) select i from n";
    let reply = server.post("/api/v1/sql", &json!({"query": many, "limit": 1000})).await;
    assert_eq!(reply.headers["x-truncated"], "true");
    assert_eq!(reply.expect(200)["rows"].as_array().unwrap().len(), 10);
    assert_eq!(
        server.post("/api/v1/sql", &json!({"query": many, "limit": 3})).await.expect(200)["rows"],
        json!([[1], [2], [3]])
    );
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n";
    let problem = server
        .post("/api/v1/sql", &json!({"query": endless, "timeout_s": 100}))
        .await
        .problem(422, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("longer than 0.3 s"), "{problem}");
}
