use reqwest::Method;
use serde_json::{Value, json};
use spectemp_api::Settings;
use spectemp_store::{
    AllowList, DEFAULT_TENANT, ListingOptions, LocationOptions, Locations, Role, StoreError, listing,
};

use super::support::{Server, open, send, with};

fn index(name: &str, prefix: &str) -> Value {
    json!({
        "name": name,
        "prefix": prefix,
        "include": ["*.mp4"],
        "questions": [{"id": "colour", "question": "Which colour is it?", "choices": ["red", "blue"]}],
        "schedule": "0 3 * * *",
        "run": false,
    })
}

/// The folder of the server's videos.
fn videos(server: &Server) -> String {
    format!("{}/", server.dir.path().join("videos").display())
}

/// Lists as the housekeeping does.
async fn list(server: &Server, name: &str) {
    let ledger = server.store.ledger();
    let id = ledger.index(DEFAULT_TENANT, name).await.unwrap().id;
    let allowed = AllowList::parse([videos(server)]).unwrap();
    let locations = Locations::with_environment(LocationOptions::default(), []).allow(allowed);
    listing(ledger, &locations, id, &ListingOptions::default(), &|_| {}).await.unwrap();
}

#[tokio::test]
async fn an_index_is_made_listed_paused_and_deleted() {
    let server = open().await;
    server.video("a.mp4");
    server.video("notes.txt");
    let body = index("cams", &videos(&server));
    let reply = server.post("/api/v1/indexes", &body).await;
    assert_eq!(reply.headers["location"], "/api/v1/indexes/cams");
    let made = reply.expect(201);
    assert_eq!(made["state"], "idle", "{made}");
    assert_eq!((&made["questions"], &made["schedule"]), (&json!(1), &json!("0 3 * * *")));
    server.post("/api/v1/indexes", &body).await.problem(409, "conflict");

    let asked = server.post("/api/v1/indexes/cams/run", &Value::Null).await.expect(202);
    assert_eq!(asked["state"], "wanted", "{asked}");
    list(&server, "cams").await;
    let listed = server.get("/api/v1/indexes/cams").await.expect(200);
    assert_eq!(listed["state"], "idle", "{listed}");
    let figures = &listed["figures"];
    assert_eq!((&figures["listed"], &figures["objects"], &figures["new"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(figures["jobs"], 1, "{figures}");
    let jobs = server.get("/api/v1/jobs").await.expect(200);
    let video = jobs["jobs"][0]["video"].as_str().unwrap();
    assert!(video.ends_with("/a.mp4"), "{jobs}");
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1);

    let paused = server.post("/api/v1/indexes/cams/pause", &Value::Null).await.expect(200);
    assert_eq!(paused["state"], "paused");
    let resumed = server.post("/api/v1/indexes/cams/resume", &Value::Null).await.expect(200);
    assert_eq!(resumed["state"], "idle");
    let all = server.get("/api/v1/indexes").await.expect(200);
    assert_eq!(all["indexes"], json!([server.get("/api/v1/indexes/cams").await.expect(200)]));

    let gone = send(server.request(Method::DELETE, "/api/v1/indexes/cams")).await;
    assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
    server.get("/api/v1/indexes/cams").await.problem(404, "not-found");
    let jobs = server.get("/api/v1/jobs").await.expect(200);
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1, "its jobs stay");
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let server = open().await;
    let with = |field: &str, value: Value| {
        let mut body = index("cams", &videos(&server));
        body[field] = value;
        body
    };
    for (field, value, status, kind, said) in [
        ("name", json!("a/b"), 422, "invalid", "a/b"),
        ("prefix", json!("s3://other/"), 403, "location", "s3://other/"),
        ("prefix", json!("/etc/"), 403, "location", "/etc"),
        ("questions", json!([]), 422, "invalid", "question"),
        ("questions", json!([{"question": ""}]), 422, "invalid", "question"),
        ("schedule", json!("often"), 422, "invalid", "often"),
        ("include", json!(["[a"]), 422, "invalid", "[a"),
        ("restore_tier", json!("fast"), 422, "invalid", "fast"),
        ("results", json!("s3://other/out/"), 403, "location", "s3://other/out/"),
        ("colour", json!(1), 422, "invalid", "colour"),
    ] {
        let problem = server.post("/api/v1/indexes", &with(field, value)).await.problem(status, kind);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(said), "{field}: {detail}");
    }
    for rest in ["/run", "/pause", "/resume"] {
        server.post(&format!("/api/v1/indexes/none{rest}"), &Value::Null).await.problem(404, "not-found");
    }
    assert_eq!(server.get("/api/v1/indexes").await.expect(200)["indexes"], json!([]));
}

#[tokio::test]
async fn only_an_admin_of_the_tenant_changes_an_index() {
    let server = with(Settings::default()).await;
    let admin = server.caller("one", Role::Admin).await;
    let submitter = server.caller("one", Role::Submit).await;
    let stranger = server.caller("two", Role::Admin).await;
    let body = index("cams", "s3://videos/in/");
    submitter.post("/api/v1/indexes", &body).await.problem(403, "role");
    admin.post("/api/v1/indexes", &body).await.expect(201);
    submitter.get("/api/v1/indexes/cams").await.expect(200);
    submitter.post("/api/v1/indexes/cams/run", &Value::Null).await.problem(403, "role");
    send(submitter.request(Method::DELETE, "/api/v1/indexes/cams")).await.problem(403, "role");

    stranger.get("/api/v1/indexes/cams").await.problem(404, "not-found");
    stranger.post("/api/v1/indexes/cams/pause", &Value::Null).await.problem(404, "not-found");
    send(stranger.request(Method::DELETE, "/api/v1/indexes/cams")).await.problem(404, "not-found");
    assert_eq!(stranger.get("/api/v1/indexes").await.expect(200)["indexes"], json!([]));
    // The same name is theirs to use.
    stranger.post("/api/v1/indexes", &body).await.expect(201);
    let found = server.store.ledger().index("one", "cams").await;
    assert!(!matches!(found, Err(StoreError::NoIndex(_))), "{found:?}");
}
