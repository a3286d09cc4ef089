use std::time::Duration;

use reqwest::{Method, header};
use serde_json::{Value, json};
use spectemp_queue::Woken;

use super::support::{Server, job, open, round, send};

async fn create(server: &Server, body: &Value) -> Value {
    server.post("/api/v1/jobs", body).await.expect(201)
}

fn path(job: &Value, rest: &str) -> String {
    format!("/api/v1/jobs/{}{rest}", job["job_id"].as_str().unwrap())
}

#[tokio::test]
async fn a_job_is_submitted_once_and_seen() {
    let server = open().await;
    let body = json!({
        "id": "q1", "video": "s3://videos/in/a%20b.mp4", "question": "Which?", "choices": ["x", "y"], "plan": "paper64",
        "set": {"seed": 3}, "priority": 7, "deadline": "2999-01-01T01:00:00+01:00"
    });
    let reply = server.post("/api/v1/jobs", &body).await;
    let location = reply.headers[header::LOCATION].to_str().unwrap().to_owned();
    let job = reply.expect(201);
    assert_eq!(location, path(&job, ""));
    assert_eq!(job["id"], "q1");
    assert_eq!(job["batch"], "jobs");
    assert_eq!(job["status"], "queued");
    assert_eq!(job["video"], "s3://videos/in/a%20b.mp4");
    assert_eq!(job["choices"], json!(["x", "y"]));
    assert_eq!((&job["plan"], &job["settings"]["seed"]), (&json!("paper64"), &json!(3)));
    assert_eq!((&job["priority"], &job["deadline"]), (&json!(7), &json!("2999-01-01T00:00:00.000Z")));
    assert_eq!((&job["rounds"], &job["error"]), (&json!(0), &Value::Null));
    assert!(job["created_at"].as_str().unwrap().ends_with('Z'));

    assert_eq!(server.get(&location).await.expect(200), job);
    assert_eq!(server.post("/api/v1/jobs", &body).await.expect(200), job, "the same again is the same job");
    let other = json!({"id": "q1", "video": "s3://videos/in/a.mp4", "question": "Other?"});
    let problem = server.post("/api/v1/jobs", &other).await.problem(409, "conflict");
    assert!(problem["detail"].as_str().unwrap().contains("question was"), "{problem}");
    let elsewhere = server.post("/api/v1/jobs?batch=b%2F2", &other).await.expect(201);
    assert_eq!(elsewhere["batch"], "b/2");
}

#[tokio::test]
async fn a_submission_rings() {
    let server = open().await;
    let doorbell = server.doorbell.clone();
    let waiting = tokio::spawn(async move { doorbell.wait(Duration::from_secs(20)).await });
    create(&server, &job("q1")).await;
    assert_eq!(waiting.await.unwrap(), Woken::Rung);
}

#[tokio::test]
async fn an_idempotency_key_makes_one_job() {
    let server = open().await;
    let post = async |key: &str, body: &Value| {
        send(server.request(Method::POST, "/api/v1/jobs").header("idempotency-key", key).json(body)).await
    };
    let body = json!({"video": "s3://videos/in/a.mp4", "question": "What?"});
    let first = post("k1", &body).await.expect(201);
    assert_eq!(post("k1", &body).await.expect(200)["job_id"], first["job_id"]);
    let other = json!({"video": "s3://videos/in/a.mp4", "question": "What else?"});
    post("k1", &other).await.problem(409, "key-reused");
    assert_ne!(post("k2", &body).await.expect(201)["job_id"], first["job_id"]);
    post("k3", &job("named")).await.expect(201);
    post("k3", &job("another")).await.problem(409, "key-reused");
    post("", &body).await.problem(400, "bad-request");

    let body = json!({"video": "s3://videos/in/b.mp4", "question": "At once?"});
    let both = tokio::join!(post("k4", &body), post("k4", &body));
    assert_eq!(both.0.json()["job_id"], both.1.json()["job_id"], "two requests at once make one job");
    let without = server.post("/api/v1/jobs", &body).await.expect(201);
    assert_ne!(
        without["id"],
        server.post("/api/v1/jobs", &body).await.expect(201)["id"],
        "each without a key is new"
    );
}

#[tokio::test]
async fn what_is_no_job_is_refused_by_name() {
    let server = open().await;
    let cases = [
        (json!({"video": "s3://videos/in/a.mp4"}), "missing field `question`"),
        (json!({"video": "s3://videos/in/a.mp4", "question": "Q?", "frames": 3}), "unknown field `frames`"),
        (json!({"id": 3, "video": "s3://videos/in/a.mp4", "question": "Q?"}), "invalid type: integer"),
        (json!({"id": "a\nb", "video": "s3://videos/in/a.mp4", "question": "Q?"}), "control characters"),
        (json!({"video": "s3://videos/in/a.mp4", "question": " "}), "question is empty"),
        (json!({"video": "s3://videos/in/a.mp4", "question": "a\u{0}"}), "NUL"),
        (json!({"video": "s3://videos/in/a.mp4", "question": "Q?", "choices": ["x"]}), "1 choices"),
        (json!({"video": "s3://videos/in/a.mp4", "question": "Q?", "plan": "p"}), "unknown plan"),
        (json!({"video": "s3://videos/in/a.mp4", "question": "Q?", "set": {"seed": "x"}}), "setting seed"),
        (json!({"video": "s3://videos/in/a.mp4", "question": "Q?", "priority": 1.5}), "1.5"),
        (json!({"video": "s3://videos/in/a.mp4", "question": "Q?", "deadline": "soon"}), "no moment"),
        (json!([1]), "body is not what is wanted"),
    ];
    for (body, cause) in cases {
        let problem = server.post("/api/v1/jobs", &body).await.problem(422, "invalid");
        assert!(problem["detail"].as_str().unwrap().contains(cause), "{body}: {problem}");
    }
    let name = format!("/api/v1/jobs?batch={}", "b".repeat(513));
    server.post(&name, &job("q")).await.problem(422, "invalid");
    assert_eq!(server.get("/api/v1/jobs").await.expect(200)["jobs"], json!([]));
}

#[tokio::test]
async fn a_job_is_cancelled_retried_and_ranked() {
    let server = open().await;
    let first = create(&server, &job("q1")).await;
    let cancelled = server.post(&path(&first, "/cancel"), &Value::Null).await.expect(200);
    assert_eq!(cancelled["status"], "cancelled");
    let again = send(server.request(Method::DELETE, &path(&first, ""))).await.expect(200);
    assert_eq!(again["status"], "cancelled", "a second time changes nothing");
    assert_eq!(server.post(&path(&first, "/retry"), &Value::Null).await.expect(200)["status"], "queued");
    server.post(&path(&first, "/retry"), &Value::Null).await.problem(409, "conflict");

    let patch = async |body: Value| send(server.request(Method::PATCH, &path(&first, "")).json(&body)).await;
    assert_eq!(patch(json!({"priority": 5})).await.expect(200)["priority"], 5);
    patch(json!({"priority": "high"})).await.problem(422, "invalid");
    patch(json!({"priority": 5, "status": "answered"})).await.problem(422, "invalid");

    server.answer_next("a cat").await;
    patch(json!({"priority": 6})).await.problem(409, "conflict");
    server.post(&path(&first, "/cancel"), &Value::Null).await.problem(409, "conflict");
    let claim = create(&server, &job("q2")).await;
    let lease = server.claim().await.lease;
    assert_eq!(server.get(&path(&claim, "")).await.expect(200)["worker"], "test worker");
    server.store.ledger().fail(lease, "no video stream", true).await.unwrap();
    let failed = server.get(&path(&claim, "")).await.expect(200);
    assert_eq!((&failed["status"], &failed["error"]), (&json!("failed"), &json!("no video stream")));
    assert_eq!(server.post(&path(&claim, "/retry"), &Value::Null).await.expect(200)["status"], "queued");
}

#[tokio::test]
async fn rounds_answer_and_trace_come_as_they_are_made() {
    let server = open().await;
    let job = create(&server, &job("q1")).await;
    for rest in ["/answer", "/trace"] {
        let problem = server.get(&path(&job, rest)).await.problem(404, "not-found");
        assert!(problem["detail"].as_str().unwrap().contains("queued"), "{problem}");
    }
    assert_eq!(server.get(&path(&job, "/rounds")).await.expect(200)["rounds"], json!([]));
    server.answer_next("a cat").await;
    let rounds = server.get(&path(&job, "/rounds")).await.expect(200);
    assert_eq!(rounds["rounds"], json!([serde_json::to_value(round(0, "a cat")).unwrap()]));
    let answer = server.get(&path(&job, "/answer")).await.expect(200);
    assert_eq!((&answer["answer"], &answer["confidence"]), (&json!("a cat"), &json!(0.75)));
    assert_eq!(answer["evidence"], json!([{"start_s": 0.0, "end_s": 10.0, "frames_s": [5.0]}]));
    assert_eq!(answer["job_id"], job["job_id"]);
    let trace = server.get(&path(&job, "/trace")).await.expect(200);
    assert_eq!((&trace["version"], &trace["answer"]["answer"]), (&json!(1), &json!("a cat")));
    let page =
        server.get("/api/v1/answers?batch=jobs&video=s3%3A%2F%2Fvideos%2Fin%2Fa.mp4").await.expect(200);
    assert_eq!(page, json!({"answers": [answer], "next": null}));
    assert_eq!(server.get("/api/v1/answers?batch=other").await.expect(200)["answers"], json!([]));
}

#[tokio::test]
async fn a_job_that_is_not_there_is_404_everywhere() {
    let server = open().await;
    for id in ["0197b1e5-0000-7000-8000-000000000000", "no-uuid", "%00"] {
        for rest in ["", "/rounds", "/trace", "/answer", "/events"] {
            server.get(&format!("/api/v1/jobs/{id}{rest}")).await.problem(404, "not-found");
        }
        for rest in ["/cancel", "/retry"] {
            server.post(&format!("/api/v1/jobs/{id}{rest}"), &Value::Null).await.problem(404, "not-found");
        }
    }
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let server = open().await;
    for no in 0..5 {
        let video = format!("s3://videos/in/{}.mp4", no % 2);
        create(&server, &json!({"id": format!("q{no}"), "video": video, "question": "Q?"})).await;
    }
    server.answer_next("yes").await;
    let mut path = "/api/v1/jobs?limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = server.get(&path).await.expect(200);
        let jobs = page["jobs"].as_array().unwrap().clone();
        assert!(jobs.len() <= 2);
        seen.extend(jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/jobs?limit=2&cursor={next}");
    }
    assert_eq!(seen, ["q0", "q1", "q2", "q3", "q4"]);
    let ids = async |query: &str| {
        let page = server.get(&format!("/api/v1/jobs?{query}")).await.expect(200);
        page["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("status=answered").await, ["q0"]);
    assert_eq!(ids("status=queued&video=s3://videos/in/0.mp4").await, ["q2", "q4"]);
    assert_eq!(ids("batch=none").await, Vec::<String>::new());
    for bad in ["limit=0", "limit=1001", "cursor=x"] {
        server.get(&format!("/api/v1/jobs?{bad}")).await.problem(422, "invalid");
    }
    for bad in ["status=done", "limit=-1", "state=queued", "batch=a%00b"] {
        server.get(&format!("/api/v1/jobs?{bad}")).await.problem(400, "bad-request");
    }
}
