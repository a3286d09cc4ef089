use std::time::Duration;

use reqwest::{Method, header};
use serde_json::{Value, json};
use spectemp_api::Settings;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::{job, lines, open, send, with};

#[tokio::test]
async fn a_client_that_never_ends_its_headers_is_let_go() {
    let within = Duration::from_millis(100);
    let server = with(Settings { open: true, headers_within: within, ..Settings::default() }).await;
    for sent in ["", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answered = String::new();
        // The end comes though this side says no more.
        stream.read_to_string(&mut answered).await.unwrap();
        assert!(!answered.contains("200 OK"), "{answered}");
    }
    server.get("/healthz").await.expect(200);
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let server = open().await;
    server.get("/api/v1/nothing").await.problem(404, "no-route");
    server.get("/nothing").await.problem(404, "no-route");
    for (method, path) in
        [(Method::PUT, "/api/v1/jobs"), (Method::POST, "/healthz"), (Method::DELETE, "/api/v1/sql")]
    {
        let reply = send(server.request(method.clone(), path)).await;
        assert!(reply.headers.contains_key(header::ALLOW), "{method} {path}: {reply:?}");
        reply.problem(405, "no-method");
    }
    let post = |kind: &'static str, body: &'static str| {
        server.request(Method::POST, "/api/v1/jobs").header(header::CONTENT_TYPE, kind).body(body)
    };
    send(post("text/plain", "{}")).await.problem(415, "media-type");
    send(server.request(Method::POST, "/api/v1/jobs").body("{}")).await.problem(415, "media-type");
    send(post("application/json", "{")).await.problem(400, "bad-request");
    send(post("application/json", "")).await.problem(400, "bad-request");
    send(post("application/json", "\u{ff}")).await.problem(400, "bad-request");
    send(
        server.request(Method::POST, "/api/v1/batches").header(header::CONTENT_TYPE, "text/plain").body("x"),
    )
    .await
    .problem(415, "media-type");
    server.get("/api/v1/jobs/%ff").await.problem(404, "not-found");
}

#[tokio::test]
async fn bodies_are_limited() {
    let server =
        with(Settings { open: true, body_bytes: 1000, batch_bytes: 3000, ..Settings::default() }).await;
    let long = json!({"id": "q", "video": "s3://videos/in/a.mp4", "question": "x".repeat(2000)});
    server.post("/api/v1/jobs", &long).await.problem(413, "too-large");
    server.lines("/api/v1/batches?name=a", lines(100)).await.problem(413, "too-large");
    assert_eq!(server.get("/api/v1/jobs").await.expect(200)["jobs"], json!([]), "its length was told");
    let pieces: Vec<Result<String, std::io::Error>> =
        (0..100).map(|no| Ok(format!("{}\n", job(&no.to_string())))).collect();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let problem = server.lines("/api/v1/batches?name=b", body).await.problem(413, "too-large");
    let kept = server.get("/api/v1/batches/b").await.expect(200)["counts"]["queued"].as_u64().unwrap();
    assert!(kept > 0, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(&format!("{kept} new jobs")), "{problem}");
}

#[tokio::test]
async fn a_request_keeps_its_id() {
    let server = open().await;
    let get = |id: &str| server.request(Method::GET, "/api/v1/nothing").header("x-request-id", id);
    let reply = send(get("mine-1")).await;
    assert_eq!(reply.headers["x-request-id"], "mine-1");
    assert_eq!(reply.problem(404, "no-route")["request_id"], "mine-1");
    let own = send(get(&"x".repeat(500))).await;
    assert_eq!(own.headers["x-request-id"].to_str().unwrap().len(), 36, "an overlong one is replaced");
    let fine = server.get("/healthz").await;
    assert_eq!(fine.headers["x-request-id"].to_str().unwrap().len(), 36);
}

#[tokio::test]
async fn health_is_told_to_everybody() {
    let server =
        with(Settings { metrics: Some(std::sync::Arc::new(|| "up 1\n".to_owned())), ..Settings::default() })
            .await;
    assert_eq!(server.get("/healthz").await.expect(200)["status"], "ok");
    let ready = server.get("/readyz").await.expect(200);
    assert_eq!(ready, json!({"status": "ready", "reasons": [], "ledger": "up", "doorbell": "up"}));
    assert_eq!(server.get("/metrics").await.text, "up 1\n");
    server.get("/api/v1/jobs").await.problem(401, "no-key");
    server.store.ledger().close().await;
    let gone = server.get("/readyz").await.expect(503);
    assert_eq!((&gone["status"], &gone["ledger"]), (&json!("unavailable"), &json!("down")));
    assert_eq!(server.get("/healthz").await.expect(200)["status"], "ok");
}

#[tokio::test]
async fn without_its_ledger_the_server_says_503() {
    let server = open().await;
    server.get("/api/v1/jobs").await.expect(200);
    server.store.ledger().close().await;
    let reply = server.get("/api/v1/jobs").await;
    assert!(reply.headers.contains_key(header::RETRY_AFTER), "{reply:?}");
    let problem = reply.problem(503, "unavailable");
    assert!(!problem.to_string().to_lowercase().contains("pool"), "nothing internal: {problem}");
}

#[tokio::test]
async fn the_pages_of_the_documentation_are_there() {
    let server = open().await;
    let docs = server.get("/docs/").await;
    assert!(docs.status.is_success() && docs.text.contains("swagger-ui"), "{docs:?}");
    assert!(!docs.text.contains("https://"), "nothing is loaded from elsewhere");
    let document: Value = server.get("/api/v1/openapi.json").await.expect(200);
    assert_eq!(document["openapi"], "3.1.0");
}
