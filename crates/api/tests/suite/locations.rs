//! What a server opens is decided by its operator: no request gets it to reach anything else.

use serde_json::json;

use super::support::open;

#[tokio::test]
async fn no_video_leads_elsewhere() {
    let server = open().await;
    let inside = server.video("a.mp4");
    let folder = server.dir.path().join("videos");
    std::fs::write(server.dir.path().join("secret.mp4"), "x").unwrap();
    std::os::unix::fs::symlink(server.dir.path(), folder.join("out")).unwrap();
    let folder = folder.to_str().unwrap();
    let post =
        async |video: &str| server.post("/api/v1/jobs", &json!({"video": video, "question": "Q?"})).await;
    post(&inside).await.expect(201);
    post(&format!("file://{inside}")).await.expect(201);
    for video in [
        "/etc/passwd",
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "http://169.254.169.254/latest/meta-data/iam",
        "http://127.0.0.1:6379/",
        "http://[::1]/",
        "http://media.example/archive/a.mp4",
        "https://media.example.evil.test/archive/a.mp4",
        "https://media.example/archive/../private/a.mp4",
        "https://media.example/archive/%2e%2e/private/a.mp4",
        "https://media.example/archive/%252e%252e/private/a.mp4",
        "s3://other/in/a.mp4",
        "s3://videos/a.mp4",
        "s3://videos/inner/a.mp4",
        "s3://videos/in/../a.mp4",
        "s3://videos/in/%2e%2e/a.mp4",
        "gs://videos/in/a.mp4",
        &format!("{folder}/../secret.mp4"),
        &format!("{folder}/out/secret.mp4"),
        &format!("file://{folder}/%2e%2e/secret.mp4"),
        folder,
    ] {
        let problem = post(video).await;
        assert!([403, 422].contains(&problem.status.as_u16()), "{video}: {problem:?}");
        assert!(!problem.text.contains("root:"), "{video}");
    }
    for video in [
        "a.mp4",
        "../a.mp4",
        "~/a.mp4",
        "",
        "gopher://h/",
        "javascript:alert(1)",
        "data:video/mp4;base64,AAAA",
    ] {
        post(video).await.problem(422, "invalid");
    }
    for video in [
        "https://media.example/archive/a.mp4?X-Amz-Signature=abc",
        "https://me:pw@media.example/archive/a.mp4",
    ] {
        let problem = post(video).await.problem(422, "invalid");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("signed URL") && !detail.contains("abc") && !detail.contains("pw"),
            "{detail}"
        );
    }
    let jobs = server.get("/api/v1/jobs").await.expect(200);
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 2, "the same file twice, as two jobs: {jobs}");
}

#[tokio::test]
async fn results_and_webhooks_stay_where_they_may_be() {
    let server = super::support::with(spectemp_api::Settings { open: true, ..Default::default() }).await;
    for query in
        ["results=s3://other/", "results=/etc", "results=file:///etc", "results=http://169.254.169.254/"]
    {
        let path = format!("/api/v1/batches?{query}");
        server.lines(&path, super::support::lines(1)).await.problem(403, "location");
    }
    for url in
        ["http://127.0.0.1/", "http://169.254.169.254/", "http://localhost:6379/", "file:///etc/passwd"]
    {
        let path = format!("/api/v1/batches?webhook={url}");
        server.lines(&path, super::support::lines(1)).await.problem(422, "invalid");
    }
}
