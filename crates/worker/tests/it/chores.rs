//! The housekeeping of a cluster, over a real Postgres and a real Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use spectemp_queue::Woken;
use spectemp_store::{Batch, DEFAULT_TENANT, Locations, Webhook};
use spectemp_types::JobStatus;
use spectemp_worker::{Chores, ChoresOptions, Event, SIGNATURE_HEADER, TIMESTAMP_HEADER, signature};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};
use tokio_util::sync::CancellationToken;

use crate::support::{ANSWER, Cluster, Running, Stuck, lines, millis, spec};

const UNIFORM: [&str; 1] = ["strategy=uniform"];

/// Housekeeping that looks every second.
async fn housekeep(cluster: &Cluster, private_webhooks: bool) -> CancellationToken {
    let every = || "* * * * * *".parse().unwrap();
    let options = ChoresOptions {
        sweep: every(),
        tell: every(),
        waiting: Duration::ZERO,
        private_webhooks,
        ..ChoresOptions::new().unwrap()
    };
    let (store, locations) = (cluster.store.clone(), Arc::new(Locations::default()));
    let chores = Chores { store, locations, doorbell: cluster.doorbell(), options };
    let stop = CancellationToken::new();
    tokio::spawn(chores.run(stop.clone()));
    stop
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_takes_back_what_a_dead_worker_left_and_rings_for_it() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let job = cluster.submit(&[spec("a", &video, &UNIFORM)]).await[0];
    let mut worker =
        cluster.worker(spectemp_worker::Models { target: Stuck::new(9, &[ANSWER]), draft: None }).await;
    worker.options.lease = millis(1_500);
    worker.options.heartbeat = millis(500);
    let mut running = Running::start(worker);
    running.until(|event| matches!(event, Event::Started { .. }).then_some(())).await;
    // It dies without a word.
    running.task.abort();
    let dead = Instant::now();

    let stop = housekeep(&cluster, false).await;
    let mut other = cluster.worker(lines(&[ANSWER])).await;
    // Only a ring wakes this one.
    other.options.poll = millis(60_000);
    let other = Running::start(other);
    cluster.until_answered(1).await;
    assert!(dead.elapsed() < millis(6_000), "{:?}", dead.elapsed());
    let row = cluster.store.ledger().job(job).await.unwrap();
    assert_eq!((row.status, row.crashes), (JobStatus::Answered, 1));
    other.stop().await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_jobs_are_rung_for_again() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let doorbell = cluster.doorbell();
    let stop = housekeep(&cluster, false).await;
    assert_eq!(doorbell.wait(millis(2_500)).await, Woken::Timeout, "nothing waits, nobody is woken");
    // Submitted without a ring, as where Redis was flushed right after it.
    cluster.submit(&[spec("a", &video, &UNIFORM)]).await;
    assert_eq!(doorbell.wait(millis(5_000)).await, Woken::Rung);
    stop.cancel();
}

/// One request as it came in.
struct Seen {
    headers: String,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        let line = self.headers.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.headers))
    }
}

/// A receiver of webhooks that answers the first `faults` requests with 500.
async fn receiver(faults: usize) -> (String, UnboundedReceiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, seen) = unbounded_channel();
    let left = Arc::new(AtomicUsize::new(faults));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (sender, left) = (sender.clone(), left.clone());
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                let head = loop {
                    if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                        return;
                    }
                    if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                        break end;
                    }
                };
                let headers = String::from_utf8(bytes[..head].to_vec()).unwrap();
                let length = headers.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let length: usize = length.parse().unwrap();
                while bytes.len() < head + 4 + length {
                    stream.read_buf(&mut bytes).await.unwrap();
                }
                let fails =
                    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                let status = if fails { "500 Internal Server Error" } else { "204 No Content" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                sender.send(Seen { headers, body: bytes[head + 4..].to_vec() }).unwrap();
            });
        }
    });
    (url, seen)
}

async fn until<T>(seconds: u64, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(seconds), "it did not come");
        tokio::time::sleep(millis(50)).await;
    }
}

fn batch(results: Option<String>, webhook: Option<Webhook>) -> Batch {
    Batch {
        tenant: DEFAULT_TENANT.to_owned(),
        name: "batch".to_owned(),
        sealed: true,
        bad_lines: 2,
        results,
        webhook,
        ..Batch::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_ends_is_exported_and_told_of() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let missing = cluster.place.dir.path().join("missing.mp4");
    cluster.submit(&[spec("a", &video, &UNIFORM), spec("b", &missing, &UNIFORM)]).await;
    let (url, mut seen) = receiver(1).await;
    let results = cluster.place.dir.path().join("results");
    let webhook = Webhook { url, secret: "a secret".to_owned() };
    let put = batch(Some(results.display().to_string()), Some(webhook));
    cluster.store.ledger().put_batch(&put).await.unwrap();

    let stop = housekeep(&cluster, true).await;
    tokio::time::sleep(millis(2_000)).await;
    assert!(seen.try_recv().is_err(), "jobs still wait");
    let running = Running::start(cluster.worker(lines(&[ANSWER])).await);
    cluster.until_answered(1).await;

    // The first call fails, the second one comes a few seconds later.
    for call in 0..2 {
        let told = tokio::time::timeout(Duration::from_secs(20), seen.recv()).await.unwrap().unwrap();
        let (timestamp, signed) = (told.header(TIMESTAMP_HEADER), told.header(SIGNATURE_HEADER));
        assert_eq!(signed, signature("a secret", timestamp, &told.body), "call {call}");
        let body: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "version": 1, "type": "batch.ended", "tenant": "default", "batch": "batch", "answered": 1, "failed": 1,
                "cancelled": 0, "bad_lines": 2, "results": results.display().to_string(),
            })
        );
    }
    let ledger = cluster.store.ledger();
    let told = until(5, async || {
        ledger.batch(DEFAULT_TENANT, "batch").await.unwrap().filter(|batch| batch.told_ms.is_some())
    })
    .await;
    assert!(told.exported_ms.is_some());
    let parquet = std::fs::read_dir(results.join("answers")).unwrap();
    assert_eq!(
        parquet
            .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|ext| ext == "parquet"))
            .count(),
        1
    );
    assert!(results.join("manifest.json").is_file());
    tokio::time::sleep(millis(2_500)).await;
    assert!(seen.try_recv().is_err(), "a webhook that took the message is not called again");
    running.stop().await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_into_the_private_network_is_never_called() {
    let cluster = Cluster::new().await;
    let (url, mut seen) = receiver(0).await;
    let put = batch(None, Some(Webhook { url, secret: String::new() }));
    cluster.store.ledger().put_batch(&put).await.unwrap();
    let stop = housekeep(&cluster, false).await;
    let ledger = cluster.store.ledger();
    let error = until(10, async || ledger.batch(DEFAULT_TENANT, "batch").await.unwrap().unwrap().error).await;
    assert!(error.contains("private address"), "{error}");
    assert!(seen.try_recv().is_err());
    stop.cancel();
}
