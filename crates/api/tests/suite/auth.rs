use reqwest::Method;
use serde_json::{Value, json};
use spectemp_api::Settings;
use spectemp_store::Role;

use super::support::{Server, job, lines, open, postgres, send, with};

#[tokio::test]
async fn a_key_is_needed_and_its_role_counts() {
    let server = with(Settings::default()).await;
    server.get("/api/v1/jobs").await.problem(401, "no-key");
    let reply = send(server.request(Method::GET, "/api/v1/jobs").bearer_auth("wrong")).await;
    assert!(reply.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    reply.problem(401, "wrong-key");
    send(server.request(Method::GET, "/api/v1/jobs").basic_auth("a", Some("b"))).await.problem(401, "no-key");

    let reader = server.caller("one", Role::Read).await;
    let submitter = server.caller("one", Role::Submit).await;
    let created = submitter.post("/api/v1/jobs", &job("q1")).await.expect(201);
    let path = format!("/api/v1/jobs/{}", created["job_id"].as_str().unwrap());
    reader.get(&path).await.expect(200);
    let problem = reader.post("/api/v1/jobs", &job("q2")).await.problem(403, "role");
    assert!(problem["detail"].as_str().unwrap().contains("role submit"), "{problem}");
    reader.lines("/api/v1/batches", lines(1)).await.problem(403, "role");
    reader.post(&format!("{path}/cancel"), &Value::Null).await.problem(403, "role");
    submitter.post(&format!("{path}/cancel"), &Value::Null).await.expect(200);
}

#[tokio::test]
async fn a_revoked_key_is_refused() {
    let server = with(Settings::default()).await;
    let key = server.store.ledger().create_key("one", Role::Read, "x").await.unwrap();
    server.store.ledger().revoke_key(&key.id).await.unwrap();
    let get = server.request(Method::GET, "/api/v1/jobs").bearer_auth(&key.secret);
    send(get).await.problem(401, "wrong-key");
}

#[tokio::test]
async fn an_open_server_closes_with_its_first_key_and_refuses_other_sites() {
    let server = open().await;
    let post = |name: &'static str, value: &'static str| {
        server.request(Method::POST, "/api/v1/jobs").header(name, value).json(&job("q"))
    };
    send(post("origin", "https://evil.example")).await.problem(403, "other-site");
    send(post("host", "evil.example")).await.problem(403, "other-site");
    let closing = open().await;
    closing.caller("one", Role::Read).await;
    closing.get("/api/v1/jobs").await.problem(401, "no-key");
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    strangers(&with(Settings::default()).await).await;
}

#[tokio::test]
async fn tenants_do_not_see_each_other_on_postgres() {
    let server = postgres(Settings::default()).await;
    strangers(&server).await;
    let sql = json!({"query": "select answer from answers"});
    for (tenant, rows) in [("one", json!([["a secret"]])), ("two", json!([]))] {
        let caller = server.caller(tenant, Role::Read).await;
        assert_eq!(caller.post("/api/v1/sql", &sql).await.expect(200)["rows"], rows, "{tenant}");
    }
}

async fn strangers(server: &Server) {
    let (one, two) = (server.caller("one", Role::Admin).await, server.caller("two", Role::Admin).await);
    let intake = one.lines("/api/v1/batches?name=b", lines(2)).await.expect(201);
    assert_eq!(intake["submitted"], 2);
    let id = server.answer_next("a secret").await;

    for rest in ["", "/rounds", "/trace", "/answer", "/events"] {
        two.get(&format!("/api/v1/jobs/{id}{rest}")).await.problem(404, "not-found");
    }
    for rest in ["/cancel", "/retry"] {
        two.post(&format!("/api/v1/jobs/{id}{rest}"), &Value::Null).await.problem(404, "not-found");
    }
    let patch = two.request(Method::PATCH, &format!("/api/v1/jobs/{id}")).json(&json!({"priority": 1}));
    send(patch).await.problem(404, "not-found");
    send(two.request(Method::DELETE, &format!("/api/v1/jobs/{id}"))).await.problem(404, "not-found");
    for rest in ["", "/counts", "/bad-lines", "/answers", "/events"] {
        two.get(&format!("/api/v1/batches/b{rest}")).await.problem(404, "not-found");
    }
    for rest in ["/cancel", "/retry-failed"] {
        two.post(&format!("/api/v1/batches/b{rest}"), &Value::Null).await.problem(404, "not-found");
    }
    for (path, list) in
        [("/api/v1/jobs", "jobs"), ("/api/v1/batches", "batches"), ("/api/v1/answers", "answers")]
    {
        assert_eq!(two.get(path).await.expect(200)[list], json!([]), "{path}");
        assert_ne!(one.get(path).await.expect(200)[list], json!([]), "{path}");
    }

    // The same names are theirs to use.
    let own = two.lines("/api/v1/batches?name=b", lines(1)).await.expect(201);
    assert_eq!((&own["submitted"], &own["existing"]), (&json!(1), &json!(0)));
    assert_eq!(one.get("/api/v1/batches/b/counts").await.expect(200)["total"], 2);
}

#[tokio::test]
async fn one_key_cannot_ask_without_end() {
    let server = with(Settings { rate_per_second: 0.5, rate_burst: 3, ..Settings::default() }).await;
    let (busy, other) = (server.caller("one", Role::Read).await, server.caller("one", Role::Read).await);
    for _ in 0..3 {
        busy.get("/api/v1/jobs").await.expect(200);
    }
    let reply = busy.get("/api/v1/jobs").await;
    let seconds: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&seconds), "{seconds}");
    reply.problem(429, "rate-limit");
    other.get("/api/v1/jobs").await.expect(200);
}
