use reqwest::{Method, header};
use serde_json::{Value, json};

use super::support::{job, lines, open, send};

#[tokio::test]
async fn a_body_of_lines_becomes_a_batch() {
    let server = open().await;
    let body = format!(
        "\u{feff}{}\r\n\n{}\n{{\"id\":\"q2\"\n{}\n{}\n{}",
        job("q0"),
        job("q1"),
        job("q0"),
        json!({"id": "q1", "video": "s3://videos/in/a.mp4", "question": "Other?"}),
        json!({"id": "q3", "video": "s3://elsewhere/a.mp4", "question": "Q?", "priority": 9}),
    );
    let reply = server.lines("/api/v1/batches?name=b%2F1&priority=4", body.clone()).await;
    assert_eq!(reply.headers[header::LOCATION], "/api/v1/batches/b%2F1");
    let intake = reply.expect(201);
    assert_eq!(
        (&intake["lines"], &intake["submitted"], &intake["existing"]),
        (&json!(6), &json!(2), &json!(1))
    );
    assert_eq!((&intake["bad_lines"], &intake["complete"]), (&json!(3), &json!(false)));
    let errors = intake["errors"].as_array().unwrap();
    let numbers: Vec<u64> = errors.iter().map(|bad| bad["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers.iter().collect::<std::collections::BTreeSet<_>>(), [4, 6, 7].iter().collect());
    let text = intake["errors"].to_string();
    for cause in ["EOF while parsing", "with other content", "may open"] {
        assert!(text.contains(cause), "{text}");
    }

    let batch = server.get("/api/v1/batches/b%2F1").await.expect(200);
    assert_eq!(
        (&batch["batch"], &batch["sealed"], &batch["bad_lines"]),
        (&json!("b/1"), &json!(true), &json!(3))
    );
    assert_eq!(batch["counts"]["queued"], 2);
    assert_eq!(server.get("/api/v1/batches/b%2F1/counts").await.expect(200), batch["counts"]);
    let bad = server.get("/api/v1/batches/b%2F1/bad-lines?limit=2").await.expect(200);
    assert_eq!((&bad["lines"][0]["line"], &bad["lines"][1]["line"]), (&json!(4), &json!(6)));
    let next = bad["next"].as_str().unwrap();
    let rest = server.get(&format!("/api/v1/batches/b%2F1/bad-lines?cursor={next}")).await.expect(200);
    assert_eq!((&rest["lines"][0]["line"], &rest["next"]), (&json!(7), &Value::Null));
    let jobs = server.get("/api/v1/jobs?batch=b/1").await.expect(200);
    assert_eq!(jobs["jobs"][0]["priority"], 4);

    let again = server.lines("/api/v1/batches?name=b%2F1&priority=4", body).await.expect(201);
    assert_eq!(
        (&again["submitted"], &again["existing"], &again["bad_lines"]),
        (&json!(0), &json!(3), &json!(3))
    );
}

#[tokio::test]
async fn settings_hold_for_the_lines_that_say_nothing_else() {
    let server = open().await;
    let own =
        json!({"id": "own", "video": "s3://videos/in/a.mp4", "question": "Q?", "set": {"max_rounds": 1}});
    let set = "%7B%22max_rounds%22%3A2%2C%22strategy%22%3A%22uniform%22%7D";
    let body = format!("{}\n{own}\n", job("q0"));
    server.lines(&format!("/api/v1/batches?name=b&set={set}"), body).await.expect(201);
    for (id, rounds) in [("q0", 2), ("own", 1)] {
        let job = server.claim().await.job;
        let settings = serde_json::to_value(&job.spec.plan.settings).unwrap();
        assert_eq!((job.spec.id.as_str(), &settings["max_rounds"]), (id, &json!(rounds)));
        assert_eq!(settings["strategy"], "uniform", "{id}");
    }
    for (set, said) in [("%7B%22colour%22%3A1%7D", "colour"), ("max_rounds%3D2", "not a JSON object")] {
        let problem =
            server.lines(&format!("/api/v1/batches?set={set}"), lines(1)).await.problem(422, "invalid");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
}

#[tokio::test]
async fn a_batch_without_a_job_is_a_problem() {
    let server = open().await;
    let problem = server.lines("/api/v1/batches?name=none", "nothing\n{}\n").await.problem(422, "no-jobs");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
    server.lines("/api/v1/batches?name=empty", "").await.problem(422, "no-jobs");
    for query in [
        "plan=p",
        "videos=s3://elsewhere/",
        "videos=relative",
        "results=/etc",
        "name=%20",
        "priority=99999999999",
    ] {
        let reply = server.lines(&format!("/api/v1/batches?{query}"), lines(1)).await;
        assert!(reply.status.is_client_error(), "{query}: {reply:?}");
    }
}

#[tokio::test]
async fn relative_videos_lie_in_the_prefix() {
    let server = open().await;
    let line = |id: &str, video: &str| json!({"id": id, "video": video, "question": "Q?"}).to_string();
    let body = [line("a", "x/a.mp4"), line("b", "../b.mp4"), line("c", "s3://videos/in/x/c.mp4")].join("\n");
    let intake = server.lines("/api/v1/batches?name=p&videos=s3://videos/in/x", body).await.expect(201);
    assert_eq!((&intake["submitted"], &intake["bad_lines"]), (&json!(2), &json!(1)), "{intake}");
    let jobs = server.get("/api/v1/jobs?batch=p").await.expect(200);
    assert_eq!(jobs["jobs"][0]["video"], "s3://videos/in/x/x/a.mp4");
}

#[tokio::test]
async fn a_manifest_is_read_in_the_background() {
    let server = open().await;
    let manifest = server.video("questions.jsonl");
    std::fs::write(&manifest, format!("{}no job\n", lines(1500))).unwrap();
    let body = json!({"manifest": manifest, "name": "m", "set": {"seed": 5}, "plan": "paper64"});
    let reply = server.post("/api/v1/batches", &body).await;
    assert_eq!(reply.headers[header::LOCATION], "/api/v1/batches/m");
    assert_eq!(reply.expect(202)["batch"], "m");
    let mut batch = Value::Null;
    for _ in 0..200 {
        batch = server.get("/api/v1/batches/m").await.expect(200);
        if batch["sealed"] == true {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!((&batch["counts"]["queued"], &batch["bad_lines"]), (&json!(1500), &json!(1)), "{batch}");
    let jobs = server.get("/api/v1/jobs?batch=m&limit=1").await.expect(200);
    assert_eq!(
        (&jobs["jobs"][0]["settings"]["seed"], &jobs["jobs"][0]["plan"]),
        (&json!(5), &json!("paper64"))
    );

    let refused = |manifest: &str| json!({"manifest": manifest});
    server.post("/api/v1/batches", &refused("/etc/passwd")).await.problem(403, "location");
    server.post("/api/v1/batches", &refused("s3://elsewhere/q.jsonl")).await.problem(403, "location");
    server.post("/api/v1/batches", &refused("q.jsonl")).await.problem(422, "invalid");
    let missing = manifest.replace("questions", "missing");
    let problem = server.post("/api/v1/batches", &refused(&missing)).await.problem(422, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("does not exist"), "{problem}");
    server.post("/api/v1/batches", &json!({})).await.problem(422, "invalid");
}

#[tokio::test]
async fn a_batch_is_cancelled_and_its_failures_retried() {
    let server = open().await;
    server.lines("/api/v1/batches?name=b", lines(3)).await.expect(201);
    server.answer_next("yes").await;
    let failing = server.claim().await;
    server.store.ledger().fail(failing.lease, "gone", true).await.unwrap();
    let counts = server.get("/api/v1/batches/b/counts").await.expect(200);
    let expected = json!({"queued": 1, "running": 0, "answered": 1, "failed": 1, "cancelled": 0, "total": 3});
    assert_eq!(counts, expected);
    assert_eq!(
        server.post("/api/v1/batches/b/retry-failed", &Value::Null).await.expect(200),
        json!({"jobs": 1})
    );
    assert_eq!(server.post("/api/v1/batches/b/cancel", &Value::Null).await.expect(200), json!({"jobs": 2}));
    let batch = server.get("/api/v1/batches/b").await.expect(200);
    assert_eq!((&batch["counts"]["cancelled"], &batch["ended"]), (&json!(2), &json!(true)));
    for (method, rest) in [
        (Method::GET, ""),
        (Method::GET, "/counts"),
        (Method::GET, "/bad-lines"),
        (Method::GET, "/answers"),
        (Method::GET, "/events"),
        (Method::POST, "/cancel"),
        (Method::POST, "/retry-failed"),
    ] {
        let path = format!("/api/v1/batches/other{rest}");
        send(server.request(method, &path)).await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn answers_come_as_pages_or_as_lines() {
    let server = open().await;
    server.lines("/api/v1/batches?name=b", lines(5)).await.expect(201);
    for no in 0..5 {
        server.answer_next(&format!("answer {no}")).await;
    }
    let page = server.get("/api/v1/batches/b/answers?limit=3").await.expect(200);
    assert_eq!(page["answers"].as_array().unwrap().len(), 3);
    let next = page["next"].as_str().unwrap();
    let rest = server.get(&format!("/api/v1/batches/b/answers?limit=3&cursor={next}")).await.expect(200);
    assert_eq!((rest["answers"].as_array().unwrap().len(), &rest["next"]), (2, &Value::Null));
    let get = |accept: &str| {
        server.request(Method::GET, "/api/v1/batches/b/answers").header(header::ACCEPT, accept)
    };
    let all = send(get("application/x-ndjson")).await;
    assert_eq!(all.headers[header::CONTENT_TYPE], "application/x-ndjson");
    let texts: Vec<String> = all
        .text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["answer"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["answer 0", "answer 1", "answer 2", "answer 3", "answer 4"]);
    send(get("text/html")).await.problem(406, "not-acceptable");
}

#[tokio::test]
async fn batches_are_listed_with_what_happens_at_their_end() {
    let server = open().await;
    let results = server.dir.path().join("videos/results").to_str().unwrap().to_owned();
    let path = format!("/api/v1/batches?name=b&results={results}&webhook=http://127.0.0.1:9/hook");
    let intake = server.lines(&path, lines(1)).await.expect(201);
    assert!(intake["webhook_secret"].as_str().unwrap().starts_with("whsec_"), "{intake}");
    let batch = server.get("/api/v1/batches/b").await.expect(200);
    assert_eq!((&batch["results"], &batch["webhook"]), (&json!(results), &json!("http://127.0.0.1:9/hook")));
    assert!(!batch.to_string().contains("whsec_"), "a secret is shown once");
    let kept = server.store.ledger().batch("default", "b").await.unwrap().unwrap().webhook.unwrap();
    assert_eq!(intake["webhook_secret"], kept.secret);

    server
        .lines("/api/v1/batches?name=b&webhook=http://127.0.0.1:8/", lines(1))
        .await
        .problem(409, "conflict");
    let own = server
        .request(Method::POST, "/api/v1/batches?name=own&webhook=http://127.0.0.1:9/hook")
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .header("x-webhook-secret", "0123456789abcdef")
        .body(lines(1));
    assert_eq!(send(own).await.expect(201).get("webhook_secret"), None);
    let list = server.get("/api/v1/batches?limit=1").await.expect(200);
    assert_eq!(list["batches"][0]["batch"], "b");
    let next = list["next"].as_str().unwrap();
    let list = server.get(&format!("/api/v1/batches?cursor={next}")).await.expect(200);
    assert_eq!((&list["batches"][0]["batch"], &list["next"]), (&json!("own"), &Value::Null));
}
