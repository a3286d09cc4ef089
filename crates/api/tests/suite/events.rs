use std::time::Duration;

use reqwest::{Method, header};
use serde_json::Value;

use super::support::{Server, job, lines, open, round};

/// An event as it came.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

/// A stream under way.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(server: &Server, path: &str, after: Option<&str>) -> Self {
        let mut request = server.request(Method::GET, path).header(header::ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/event-stream"));
        Self { response, text: String::new() }
    }

    /// The next event; none where the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(|value| value.trim().to_owned())
                };
                // Comments keep the connection alive.
                let Some(name) = field("event:") else { continue };
                let data = serde_json::from_str(&field("data:").unwrap()).unwrap();
                return Some(Event { name, id: field("id:").unwrap(), data });
            }
            let piece = tokio::time::timeout(Duration::from_secs(30), self.response.chunk())
                .await
                .unwrap()
                .unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

#[tokio::test]
async fn a_job_is_followed_to_its_end_and_taken_up_again() {
    let server = open().await;
    let created = server.post("/api/v1/jobs", &job("q1")).await.expect(201);
    let path = format!("/api/v1/jobs/{}/events", created["job_id"].as_str().unwrap());
    let mut stream = Stream::open(&server, &path, None).await;
    let first = stream.next().await.unwrap();
    assert_eq!((first.name.as_str(), &first.data), ("status", &created));

    let claimed = server.claim().await;
    assert_eq!(stream.next().await.unwrap().data["status"], "running");
    let mut looks = round(0, "");
    looks.verdict = spectemp_types::Verdict::Nothing;
    server.store.ledger().checkpoint(&claimed.lease, &looks).await.unwrap();
    let told = stream.next().await.unwrap();
    assert_eq!((told.name.as_str(), &told.data["no"]), ("round", &serde_json::json!(0)));
    server.store.ledger().release(claimed.lease).await.unwrap();
    assert_eq!(stream.next().await.unwrap().data["status"], "queued");
    drop(stream);

    let claimed = server.claim().await;
    server.store.ledger().checkpoint(&claimed.lease, &round(1, "a cat")).await.unwrap();
    let mut stream = Stream::open(&server, &path, Some(&told.id)).await;
    let next = stream.next().await.unwrap();
    assert_eq!((next.name.as_str(), &next.data["no"]), ("round", &serde_json::json!(1)), "round 0 was seen");
    server.store.ledger().fail(claimed.lease, "gone", true).await.unwrap();
    let rest = stream.rest().await;
    assert_eq!(names(&rest), ["status", "end"]);
    assert_eq!(rest[1].data["error"], "gone");

    let all = Stream::open(&server, &path, None).await.rest().await;
    assert_eq!(names(&all), ["round", "round", "status", "end"]);
    let ended = server.request(Method::GET, &path).header("last-event-id", &rest[1].id).send().await.unwrap();
    assert_eq!(ended.status(), 204, "who has seen the end need not ask again");
    let nonsense = Stream::open(&server, &path, Some("nonsense")).await.rest().await;
    assert_eq!(nonsense, all);
}

#[tokio::test]
async fn an_answer_is_told_before_the_end() {
    let server = open().await;
    let created = server.post("/api/v1/jobs", &job("q1")).await.expect(201);
    let path = format!("/api/v1/jobs/{}/events", created["job_id"].as_str().unwrap());
    server.answer_next("a cat").await;
    let events = Stream::open(&server, &path, None).await.rest().await;
    assert_eq!(names(&events), ["round", "status", "answer", "end"]);
    assert_eq!(events[2].data["answer"], "a cat");
}

#[tokio::test]
async fn a_batch_is_followed_to_its_end() {
    let server = open().await;
    server.lines("/api/v1/batches?name=b", lines(2)).await.expect(201);
    let mut stream = Stream::open(&server, "/api/v1/batches/b/events", None).await;
    let first = stream.next().await.unwrap();
    assert_eq!((first.name.as_str(), &first.data["counts"]["queued"]), ("counts", &serde_json::json!(2)));
    server.answer_next("one").await;
    let second = loop {
        let event = stream.next().await.unwrap();
        if event.data["counts"]["answered"] == 1 && event.data["counts"]["running"] == 0 {
            break event;
        }
    };
    drop(stream);
    server.answer_next("two").await;
    let rest = Stream::open(&server, "/api/v1/batches/b/events", Some(&second.id)).await.rest().await;
    assert_eq!(names(&rest), ["counts", "end"]);
    assert_eq!(rest[1].data["ended"], true);
}
