//! Workers of a fleet over a real Postgres and a real Redis.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use spectemp_engine::{
    VlmError,
    testing::{ScriptedVlm, card},
};
use spectemp_types::JobStatus;
use spectemp_worker::{Event, Models, Outcome, WorkerError};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::support::{ANSWER, Cluster, OTHER_SEGMENT, Running, SEGMENT, Slow, Stuck, lines, millis, spec};

const UNIFORM: [&str; 1] = ["strategy=uniform"];

fn alone(target: Arc<dyn spectemp_engine::Vlm>) -> Models {
    Models { target, draft: None }
}

fn ended(event: &Event) -> Option<Outcome> {
    match event {
        Event::Ended { outcome, .. } => Some(outcome.clone()),
        _ => None,
    }
}

fn begun(event: &Event) -> Option<()> {
    matches!(event, Event::Started { .. }).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_starts_a_job_at_once() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let mut worker = cluster.worker(lines(&[ANSWER])).await;
    // No look into the ledger but after a ring: a job that starts was rung for.
    worker.options.poll = Duration::from_secs(24 * 3600);
    let mut running = Running::start(worker);
    let doorbell = cluster.doorbell();
    tokio::time::sleep(millis(500)).await;
    for no in 0..30 {
        let job = cluster.submit(&[spec(&format!("q{no}"), &video, &UNIFORM)]).await[0];
        doorbell.ring(Some(job)).await.unwrap();
        running.until(begun).await;
        let outcome = running.until(ended).await;
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_a_batch_and_do_nothing_twice() {
    let cluster = Cluster::new().await;
    let videos = [cluster.place.video("a.mp4", 90), cluster.place.video("b.mp4", 30)];
    let target = Slow::new(millis(30), &[ANSWER]);
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Running::start(cluster.worker(alone(target.clone())).await));
    }
    let specs: Vec<_> = (0..40).map(|no| spec(&format!("q{no}"), &videos[no % 2], &UNIFORM)).collect();
    cluster.submit(&specs).await;
    cluster.doorbell().ring(None).await.unwrap();
    cluster.until_answered(40).await;
    let mut shares = Vec::new();
    for mut worker in workers {
        worker.stop.soft.cancel();
        let mut share = 0;
        while let Some(event) = worker.events.recv().await {
            if let Some(outcome) = ended(&event) {
                assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
                share += 1;
            }
        }
        shares.push(share);
        worker.task.await.unwrap().unwrap();
    }
    assert_eq!(target.begun.load(Ordering::SeqCst), 40, "nothing is generated twice");
    assert_eq!(shares.iter().sum::<u32>(), 40);
    assert!(shares.iter().all(|share| *share > 0), "one ring wakes all of them: {shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_come_together_and_no_more_than_the_limit() {
    let cluster = Cluster::new().await;
    let videos = [cluster.place.video("a.mp4", 90), cluster.place.video("b.mp4", 30)];
    // In turns, so that order alone would mix them.
    let specs: Vec<_> = (0..8).map(|no| spec(&format!("q{no}"), &videos[no % 2], &UNIFORM)).collect();
    cluster.submit(&specs).await;
    let mut worker = cluster.worker(alone(Stuck::new(8, &[ANSWER]))).await;
    (worker.options.concurrency, worker.options.siblings, worker.options.grace) = (5, 3, millis(100));
    let mut running = Running::start(worker);
    let mut names = Vec::new();
    for _ in 0..5 {
        let name = running
            .until(|event| match event {
                Event::Started { name, .. } => Some(name.id.to_string()),
                _ => None,
            })
            .await;
        names.push(name);
    }
    names.sort();
    // Three on the first video, then the oldest that waits and its sibling.
    assert_eq!(names, ["q0", "q1", "q2", "q3", "q4"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_jobs_back_after_their_round() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let script = [SEGMENT, OTHER_SEGMENT, SEGMENT, ANSWER];
    let target = Slow::new(millis(150), &script);
    let models = Models { target: target.clone(), ..lines(&script) };
    let jobs = cluster.submit(&[spec("a", &video, &[]), spec("b", &video, &[])]).await;

    let mut made = vec![Vec::new(); jobs.len()];
    for turn in 0..10 {
        let mut running = Running::start(cluster.worker(models.clone()).await);
        // A job that was stopped right after its last round only ends.
        let advanced = |event: &Event| {
            matches!(event, Event::Round { .. } | Event::Ended { outcome: Outcome::Answered(_), .. })
                .then_some(())
        };
        running.until(advanced).await;
        running.stop.soft.cancel();
        let started = Instant::now();
        while running.events.recv().await.is_some() {}
        running.task.await.unwrap().unwrap();
        assert!(started.elapsed() < millis(5_000), "{:?}", started.elapsed());
        let mut open = 0;
        for (job, made) in jobs.iter().zip(&mut made) {
            let row = cluster.store.ledger().job(*job).await.unwrap();
            assert_eq!(row.crashes, 0, "a job that is handed back did not crash");
            assert!(matches!(row.status, JobStatus::Queued | JobStatus::Answered), "{:?}", row.status);
            made.push(row.rounds);
            open += u32::from(row.status != JobStatus::Answered);
        }
        if open == 0 {
            break;
        }
        assert!(turn < 9, "no end: {made:?}");
    }
    let generated = target.begun.load(Ordering::SeqCst);
    assert_eq!(generated, 2 * script.len(), "each round is generated once: {made:?}");
    for job in jobs {
        assert!(cluster.store.ledger().answer(job).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_time_ends() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let job = cluster.submit(&[spec("a", &video, &UNIFORM)]).await[0];
    let target = Stuck::new(1, &[ANSWER]);
    let mut worker = cluster.worker(alone(target.clone())).await;
    worker.options.grace = millis(400);
    let running = Running::start(worker);
    target.begun.notified().await;
    let took = running.stop().await;
    assert!((millis(400)..millis(2_500)).contains(&took), "{took:?}");
    let row = cluster.store.ledger().job(job).await.unwrap();
    assert_eq!((row.status, row.crashes, row.worker), (JobStatus::Queued, 0, None), "given back at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_with_the_next_heartbeat() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let job = cluster.submit(&[spec("a", &video, &UNIFORM)]).await[0];
    let target = Stuck::new(1, &[ANSWER]);
    let mut running = Running::start(cluster.worker(alone(target.clone())).await);
    target.begun.notified().await;
    let cancelled = Instant::now();
    cluster.store.ledger().cancel(job).await.unwrap();
    assert!(matches!(running.until(ended).await, Outcome::Lost));
    let took = target.cancelled.lock().unwrap().unwrap() - cancelled;
    assert!(took < millis(1_500), "a heartbeat comes every 750 ms, the session stopped after {took:?}");
    assert_eq!(cluster.status(job).await, JobStatus::Cancelled);
    running.stop().await;
    assert_eq!(cluster.status(job).await, JobStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_at_its_checkpoint() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let job = cluster.submit(&[spec("a", &video, &UNIFORM)]).await[0];
    let mut worker = cluster.worker(alone(Slow::new(millis(300), &[ANSWER]))).await;
    // No heartbeat comes into it.
    (worker.options.lease, worker.options.heartbeat) = (millis(60_000), millis(20_000));
    let mut running = Running::start(worker);
    running.until(begun).await;
    tokio::time::sleep(millis(100)).await;
    cluster.store.ledger().cancel(job).await.unwrap();
    assert!(matches!(running.until(ended).await, Outcome::Lost));
    assert_eq!(cluster.status(job).await, JobStatus::Cancelled);
    assert!(cluster.store.ledger().rounds(job).await.unwrap().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_overtaken_is_dropped_quietly() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let job = cluster.submit(&[spec("a", &video, &UNIFORM)]).await[0];
    let target = Stuck::new(1, &[ANSWER]);
    let mut running = Running::start(cluster.worker(alone(target.clone())).await);
    target.begun.notified().await;
    let taken =
        cluster.sql("update ledger_jobs set lease_expires_at = 0 where status = 'running'".to_owned()).await;
    assert_eq!(taken, 1);
    assert_eq!(cluster.store.ledger().expire().await.unwrap().requeued, 1);
    assert!(matches!(running.until(ended).await, Outcome::Lost));
    // It waits again and is answered under the next epoch.
    let outcome = running.until(ended).await;
    assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    let row = cluster.store.ledger().job(job).await.unwrap();
    assert_eq!((row.status, row.crashes), (JobStatus::Answered, 1));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_put_a_job_back_and_others_fail_it() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let text = cluster.place.dir.path().join("text.mp4");
    std::fs::write(&text, "this is no video").unwrap();
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let target = ScriptedVlm::new(card("target"), move |request| {
        let asked = format!("{:?}", request.messages);
        if asked.contains("What about panics?") {
            panic!("a defect");
        }
        let fails = asked.contains("What about never?")
            || (asked.contains("What about twice?") && calls.fetch_add(1, Ordering::SeqCst) < 2);
        if fails { Err(VlmError::Backend("out of breath".to_owned())) } else { Ok(ANSWER.to_owned()) }
    });
    let mut worker = cluster.worker(alone(Arc::new(target))).await;
    (worker.options.retries, worker.options.first_wait) = (3, millis(40));
    let specs = [
        spec("good", &video, &UNIFORM),
        spec("twice", &video, &UNIFORM),
        spec("never", &video, &UNIFORM),
        spec("panics", &video, &UNIFORM),
        spec("missing", &cluster.place.dir.path().join("missing.mp4"), &UNIFORM),
        spec("text", &text, &UNIFORM),
    ];
    let jobs = cluster.submit(&specs).await;
    let mut running = Running::start(worker);
    let mut put_back = Vec::new();
    let mut open = specs.len();
    while open > 0 {
        let (id, outcome) = running
            .until(|event| match event {
                Event::Ended { name, outcome } => Some((name.id.to_string(), outcome.clone())),
                _ => None,
            })
            .await;
        match outcome {
            Outcome::PutBack { after, error } => {
                assert!(error.contains("out of breath"), "{error}");
                put_back.push((id, after));
            }
            Outcome::Answered(_) | Outcome::Failed(_) => open -= 1,
            other => panic!("{id} ended with {other:?}"),
        }
    }
    let waits = |id: &str| -> Vec<u128> {
        put_back.iter().filter(|(of, _)| of == id).map(|(_, after)| after.as_millis()).collect()
    };
    assert_eq!(waits("twice"), [40, 80], "waits grow");
    assert_eq!(waits("never"), [40, 80, 160], "and have an end");
    assert_eq!(put_back.len(), 5, "faults of the job itself are final: {put_back:?}");
    for (job, id) in jobs.iter().zip(["good", "twice", "never", "panics", "missing", "text"]) {
        let row = cluster.store.ledger().job(*job).await.unwrap();
        let answered = ["good", "twice"].contains(&id);
        assert_eq!(row.status == JobStatus::Answered, answered, "{id}: {row:?}");
        if !answered {
            let error = row.error.unwrap();
            let says = [
                ("never", "out of breath"),
                ("panics", "a defect"),
                ("missing", "missing.mp4"),
                ("text", "text.mp4"),
            ];
            let said = says.iter().any(|(of, word)| *of == id && error.contains(word));
            assert!(said, "{id}: {error}");
        }
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_found_without_a_ring() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let mut running = Running::start(cluster.worker(lines(&[ANSWER])).await);
    tokio::time::sleep(millis(200)).await;
    cluster.submit(&[spec("a", &video, &UNIFORM)]).await;
    assert!(matches!(running.until(ended).await, Outcome::Answered(_)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_cannot_work_are_refused() {
    let cluster = Cluster::new().await;
    for (lease, heartbeat) in [(500, 100), (3_000, 0), (3_000, 2_000)] {
        let mut worker = cluster.worker(lines(&[ANSWER])).await;
        (worker.options.lease, worker.options.heartbeat) = (millis(lease), millis(heartbeat));
        let refused = worker.run(spectemp_worker::Stop::default()).await;
        assert!(matches!(refused, Err(WorkerError::Options(_))), "{lease} {heartbeat}");
    }
}

/// A way to Postgres that can be cut.
struct Wire {
    url: String,
    whole: watch::Sender<bool>,
}

impl Wire {
    async fn new(to: &str) -> Self {
        let (head, rest) = to.split_once('@').unwrap();
        let (address, name) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{head}@{}/{name}", listener.local_addr().unwrap());
        let (whole, state) = watch::channel(true);
        let address = address.to_owned();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut state, address) = (state.clone(), address.clone());
                tokio::spawn(async move {
                    if !*state.borrow() {
                        return;
                    }
                    let mut server = TcpStream::connect(address).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = state.wait_for(|whole| !whole) => {}
                    }
                });
            }
        });
        Self { url, whole }
    }

    fn cut(&self) {
        self.whole.send_replace(false);
    }

    fn mend(&self) {
        self.whole.send_replace(true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_waits_for_a_database_that_is_away_for_a_moment() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let wire = Wire::new(&cluster.url).await;
    let target = Slow::new(millis(300), &[SEGMENT, ANSWER]);
    let models = Models { target: target.clone(), ..lines(&[SEGMENT, ANSWER]) };
    let mut worker = cluster.worker_at(&wire.url, models).await;
    (worker.options.lease, worker.options.heartbeat) = (millis(12_000), millis(2_000));
    let mut running = Running::start(worker);
    let job = cluster.submit(&[spec("a", &video, &[])]).await[0];
    while target.begun.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(millis(10)).await;
    }
    wire.cut();
    tokio::time::sleep(millis(1_000)).await;
    wire.mend();
    let outcome = running.until(ended).await;
    assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    assert_eq!(target.begun.load(Ordering::SeqCst), 2, "no round is lost");
    assert_eq!(cluster.store.ledger().job(job).await.unwrap().attempts, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stops_before_its_lease_ends_and_the_worker_lives_on() {
    let cluster = Cluster::new().await;
    let video = cluster.place.video("a.mp4", 90);
    let wire = Wire::new(&cluster.url).await;
    let target = Stuck::new(1, &[ANSWER]);
    let mut running = Running::start(cluster.worker_at(&wire.url, alone(target.clone())).await);
    cluster.submit(&[spec("a", &video, &UNIFORM)]).await;
    target.begun.notified().await;
    wire.cut();
    let cut = Instant::now();
    assert!(matches!(running.until(ended).await, Outcome::Lost));
    let stopped = target.cancelled.lock().unwrap().unwrap() - cut;
    assert!(stopped < millis(3_000), "the lease is for 3 s, the session stopped after {stopped:?}");
    tokio::time::sleep(millis(3_500)).await;
    assert_eq!(cluster.store.ledger().expire().await.unwrap().requeued, 1);
    wire.mend();
    let outcome = running.until(ended).await;
    assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    running.stop().await;
}
