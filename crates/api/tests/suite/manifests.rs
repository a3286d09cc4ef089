//! Manifests whose server ends while it reads them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use spectemp_api::Settings;
use tokio::net::TcpListener;

use super::support::{Server, lines, open, postgres, with};

/// Lines of the manifest that are jobs.
const JOBS: usize = 5000;

/// A web server with one manifest. Whoever reads it first gets half of it and waits for ever.
struct Lists {
    url: String,
    readings: Arc<AtomicU32>,
}

impl Lists {
    async fn start() -> Self {
        let text = Bytes::from(format!("no job\n{}\nno job either", lines(JOBS)));
        let readings = Arc::new(AtomicU32::new(0));
        let counted = readings.clone();
        let answer = move |headers: HeaderMap| async move { list(&text, &counted, &headers) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(
            async move { axum::serve(listener, Router::new().route("/q.jsonl", get(answer))).await },
        );
        Self { url, readings }
    }
}

fn list(text: &Bytes, readings: &AtomicU32, headers: &HeaderMap) -> Response {
    let length = text.len();
    if headers.contains_key(header::RANGE) {
        let range = format!("bytes 0-0/{length}");
        return (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], text.slice(..1))
            .into_response();
    }
    let body = match readings.fetch_add(1, Ordering::SeqCst) {
        0 => {
            let half = stream::iter([Ok::<_, Infallible>(text.slice(..length / 2))]);
            Body::from_stream(half.chain(stream::pending()))
        }
        _ => Body::from(text.clone()),
    };
    ([(header::CONTENT_LENGTH, length.to_string())], body).into_response()
}

async fn until(server: &Server, done: impl Fn(&Value) -> bool) -> Value {
    let mut batch = Value::Null;
    for _ in 0..600 {
        batch = server.get("/api/v1/batches/m").await.expect(200);
        if done(&batch) {
            return batch;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never came: {batch}");
}

/// Begins to read a manifest on one server, which is killed or told to stop in the middle; another one reads it to its
/// end. `first` gives the ledger.
async fn is_read_by_another(mut first: Server, killed: bool) {
    let lists = Lists::start().await;
    first.end().await;
    let mut reader = first.beside(&lists.url).await;
    let manifest = format!("{}q.jsonl", lists.url);
    reader
        .post("/api/v1/batches", &json!({"manifest": manifest, "name": "m", "priority": 3}))
        .await
        .expect(202);
    let half = until(&reader, |batch| batch["counts"]["queued"].as_u64() >= Some(2000)).await;
    assert_eq!(half["sealed"], false, "{half}");
    // An upload to the same batch that ends meanwhile does not seal it.
    let upload = reader.lines("/api/v1/batches?name=m", lines(1)).await.expect(201);
    assert_eq!((&upload["existing"], &upload["bad_lines"]), (&json!(1), &json!(0)), "{upload}");
    assert_eq!(reader.get("/api/v1/batches/m").await.expect(200)["sealed"], false);
    match killed {
        true => reader.kill().await,
        false => reader.end().await,
    }
    let other = first.beside(&lists.url).await;
    let batch = until(&other, |batch| batch["sealed"] == true).await;
    assert_eq!((&batch["counts"]["queued"], &batch["bad_lines"]), (&json!(JOBS), &json!(2)), "{batch}");
    assert_eq!(lists.readings.load(Ordering::SeqCst), 2, "nobody reads it again");
    let bad = other.get("/api/v1/batches/m/bad-lines").await.expect(200);
    let numbers: Vec<_> = bad["lines"].as_array().unwrap().iter().map(|bad| bad["line"].clone()).collect();
    assert_eq!(numbers, [json!(1), json!(JOBS + 3)], "{bad}");
    let jobs = other.get("/api/v1/jobs?batch=m&limit=1").await.expect(200);
    assert_eq!(jobs["jobs"][0]["priority"], 3, "what lines have that say nothing else is kept");
}

fn settings() -> Settings {
    Settings { open: true, manifest_hold: Duration::from_secs(2), ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_outlives_the_death_of_its_server_on_sqlite() {
    is_read_by_another(with(settings()).await, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_outlives_the_death_of_its_server_on_postgres() {
    is_read_by_another(postgres(settings()).await, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_leaves_its_manifests_to_others_at_once() {
    // With a hold of a minute, which would be waited for.
    is_read_by_another(open().await, false).await;
}

#[tokio::test]
async fn a_manifest_that_is_gone_meanwhile_ends_its_batch() {
    let server = open().await;
    let missing = server.dir.path().join("videos/gone.jsonl").to_str().unwrap().to_owned();
    let batch = spectemp_store::Batch { tenant: "default".into(), name: "m".into(), ..Default::default() };
    let defaults = json!({"plan": "paper16", "set": [], "priority": 0, "videos": null}).to_string();
    server.store.ledger().put_manifest(&batch, &missing, &defaults).await.unwrap();
    let batch = until(&server, |batch| batch["sealed"] == true).await;
    assert_eq!(batch["bad_lines"], 1, "{batch}");
    let bad = server.get("/api/v1/batches/m/bad-lines").await.expect(200);
    assert_eq!(bad["lines"][0]["line"], 0, "{bad}");
    assert!(bad["lines"][0]["error"].as_str().unwrap().contains("gone.jsonl does not exist"), "{bad}");
}

/// The reader gets half of the manifest, then nothing: the batch is cancelled while it waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_batch_is_sealed_and_its_manifest_read_no_further() {
    let lists = Lists::start().await;
    let mut first = with(settings()).await;
    first.end().await;
    let server = first.beside(&lists.url).await;
    let manifest = format!("{}q.jsonl", lists.url);
    server.post("/api/v1/batches", &json!({"manifest": manifest, "name": "m"})).await.expect(202);
    until(&server, |batch| batch["counts"]["queued"].as_u64() >= Some(2000)).await;
    let cancelled = server.post("/api/v1/batches/m/cancel", &json!({})).await.expect(200);
    assert!(cancelled["jobs"].as_u64() >= Some(2000), "{cancelled}");
    let batch = server.get("/api/v1/batches/m").await.expect(200);
    assert_eq!((&batch["sealed"], &batch["ended"]), (&json!(true), &json!(true)), "{batch}");
    assert_eq!(batch["counts"]["cancelled"], cancelled["jobs"], "{batch}");
    let bad = server.get("/api/v1/batches/m/bad-lines").await.expect(200);
    assert!(bad["lines"][0]["error"].as_str().unwrap().contains("cancelled"), "{bad}");
    // Longer than its hold: nobody takes it for abandoned.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(lists.readings.load(Ordering::SeqCst), 1);
    assert_eq!(server.get("/api/v1/batches/m").await.expect(200)["counts"], batch["counts"]);
}
