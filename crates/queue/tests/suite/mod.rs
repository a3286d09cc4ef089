//! What both sides must do.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use spectemp_queue::{Doorbell, Housekeeping, Limit, Limiter, RedisOptions, Task, Woken};
use tokio_util::sync::CancellationToken;

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn redis_url() -> String {
    std::env::var("SPECTEMP_TEST_REDIS").unwrap_or_else(|_| {
        panic!("SPECTEMP_TEST_REDIS is not set: run `make test`, or `eval \"$(scripts/services.sh start)\"`")
    })
}

/// A prefix that no other test has.
pub(crate) fn prefix() -> String {
    format!("test-{}", spectemp_types::JobId::new())
}

pub(crate) fn redis(prefix: &str) -> Doorbell {
    redis_at(&redis_url(), prefix)
}

pub(crate) fn redis_at(url: &str, prefix: &str) -> Doorbell {
    Doorbell::redis(url, RedisOptions { prefix: prefix.to_owned() }).unwrap()
}

pub(crate) fn connection(url: &str) -> redis::Connection {
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

/// A side under test; each [`Side::process`] stands for a process of its own where that can be.
pub(crate) enum Side {
    Memory(Doorbell),
    Redis(String),
}

impl Side {
    fn process(&self) -> Doorbell {
        match self {
            Self::Memory(bell) => bell.clone(),
            Self::Redis(prefix) => redis(prefix),
        }
    }
}

/// A Redis of one's own, to be stopped and started.
pub(crate) struct Server {
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { dir: tempfile::tempdir().unwrap(), port, child: None };
        server.again();
        server
    }

    pub(crate) fn again(&mut self) {
        let child = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .arg("--dir")
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let started = Instant::now();
        while redis::Client::open(self.url()).unwrap().get_connection().is_err() {
            assert!(started.elapsed() < millis(10_000), "redis-server does not start");
            std::thread::sleep(millis(20));
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn connection(&self) -> redis::Connection {
        connection(&self.url())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) async fn a_ring_wakes_one_who_waits(side: &Side) {
    let (api, worker) = (side.process(), side.process());
    let waiting = tokio::spawn(async move { worker.wait(millis(10_000)).await });
    tokio::time::sleep(millis(100)).await;
    let started = Instant::now();
    api.ring(Some(spectemp_types::JobId::new())).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Woken::Rung);
    assert!(started.elapsed() < millis(200), "{:?}", started.elapsed());
}

pub(crate) async fn a_ring_before_the_wait_is_not_lost(side: &Side) {
    side.process().ring(None).await.unwrap();
    let worker = side.process();
    assert_eq!(worker.wait(millis(5_000)).await, Woken::Rung);
    assert_eq!(worker.wait(millis(100)).await, Woken::Timeout, "acknowledged on receipt");
}

pub(crate) async fn waiting_ends_in_time(side: &Side) {
    let worker = side.process();
    for wait in [0, 50, 300] {
        let started = Instant::now();
        assert_eq!(worker.wait(millis(wait)).await, Woken::Timeout);
        assert!(started.elapsed() < millis(wait + 250), "{:?} instead of {wait} ms", started.elapsed());
    }
}

pub(crate) async fn many_rings_are_few_wakes(side: &Side) {
    let (api, worker) = (side.process(), side.process());
    for _ in 0..1_000 {
        api.ring(None).await.unwrap();
    }
    let mut wakes = 0;
    while worker.wait(millis(300)).await == Woken::Rung {
        wakes += 1;
    }
    assert!((1..=64).contains(&wakes), "{wakes} wakes");
}

pub(crate) async fn each_of_several_waiters_is_woken(side: &Side) {
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let worker = side.process();
            tokio::spawn(async move { worker.wait(millis(10_000)).await })
        })
        .collect();
    tokio::time::sleep(millis(200)).await;
    let api = side.process();
    let started = Instant::now();
    for _ in &workers {
        api.ring(None).await.unwrap();
    }
    for worker in workers {
        assert_eq!(worker.await.unwrap(), Woken::Rung);
    }
    assert!(started.elapsed() < millis(500), "{:?}", started.elapsed());
}

/// Processes that do tasks and note them.
struct Workers {
    done: Arc<Mutex<Vec<Task>>>,
    most_at_once: Arc<AtomicUsize>,
    stop: CancellationToken,
    running: Vec<tokio::task::JoinHandle<()>>,
}

impl Workers {
    fn start(side: &Side, processes: usize, cron: &[(&str, Task)], takes: Duration) -> Self {
        let (done, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        let (now, most_at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let run = |_| {
            let (housekeeping, stop) = (Housekeeping::beside(&side.process()), stop.clone());
            let schedule = cron.iter().map(|(line, task)| (line.parse().unwrap(), task.clone())).collect();
            let (done, now, most) = (done.clone(), now.clone(), most_at_once.clone());
            let handler = move |task: Task| {
                let (done, now, most) = (done.clone(), now.clone(), most.clone());
                async move {
                    assert!(task != Task::Retention, "a defect");
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(takes).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    done.lock().unwrap().push(task);
                }
            };
            tokio::spawn(async move { housekeeping.run(handler, schedule, stop).await })
        };
        let running = (0..processes).map(run).collect();
        Self { done, most_at_once, stop, running }
    }

    async fn stop(self) -> Vec<Task> {
        self.stop.cancel();
        for running in self.running {
            tokio::time::timeout(millis(5_000), running).await.unwrap().unwrap();
        }
        self.done.lock().unwrap().clone()
    }
}

fn listing(no: usize) -> Task {
    Task::Listing { index: format!("index {no}") }
}

pub(crate) async fn tasks_are_done_once(side: &Side) {
    // In memory the list belongs to one value.
    let api = Housekeeping::beside(&side.process());
    let (done, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
    let seen = done.clone();
    let handler = move |task| {
        let seen = seen.clone();
        async move { seen.lock().unwrap().push(task) }
    };
    let running = tokio::spawn({
        let (worker, stop) = (api.clone(), stop.clone());
        async move { worker.run(handler, Vec::new(), stop).await }
    });
    for no in 0..20 {
        api.push(listing(no)).await.unwrap();
    }
    tokio::time::sleep(millis(500)).await;
    stop.cancel();
    tokio::time::timeout(millis(5_000), running).await.unwrap().unwrap();
    let mut done = done.lock().unwrap().clone();
    done.sort_by_key(|task| format!("{task:?}"));
    let mut wanted: Vec<_> = (0..20).map(listing).collect();
    wanted.sort_by_key(|task| format!("{task:?}"));
    assert_eq!(done, wanted);
}

pub(crate) async fn a_task_that_waits_is_not_sent_twice(side: &Side) {
    let housekeeping = Housekeeping::beside(&side.process());
    for _ in 0..10 {
        housekeeping.push(listing(1)).await.unwrap();
    }
    housekeeping.push(listing(2)).await.unwrap();
    let (done, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
    let seen = done.clone();
    let handler = move |task| {
        let seen = seen.clone();
        async move { seen.lock().unwrap().push(task) }
    };
    let run = housekeeping.run(handler, Vec::new(), stop.clone());
    let stopping = async {
        tokio::time::sleep(millis(300)).await;
        stop.cancel();
    };
    tokio::join!(run, stopping);
    let mut done = done.lock().unwrap().clone();
    done.sort_by_key(|task| format!("{task:?}"));
    assert_eq!(done, [listing(1), listing(2)]);
}

pub(crate) async fn cron_sends_and_one_does(side: &Side) {
    // In memory each process has its own list: there is one.
    let processes = if matches!(side, Side::Memory(_)) { 1 } else { 3 };
    let workers = Workers::start(side, processes, &[("* * * * * *", Task::Sweep)], millis(1));
    tokio::time::sleep(millis(4_500)).await;
    let done = workers.stop().await;
    assert!((3..=5).contains(&done.len()), "{done:?}");
}

pub(crate) async fn a_panic_ends_one_task(side: &Side) {
    let cron = [("* * * * * *", Task::Retention), ("* * * * * *", Task::Tell)];
    let workers = Workers::start(side, 1, &cron, millis(1));
    tokio::time::sleep(millis(3_500)).await;
    let done = workers.stop().await;
    assert!(done.len() >= 2 && done.iter().all(|task| *task == Task::Tell), "{done:?}");
}

pub(crate) async fn tasks_run_beside_each_other_but_not_all(side: &Side) {
    let cron: Vec<_> = (0..8).map(|no| ("* * * * * *", listing(no))).collect();
    let workers = Workers::start(side, 1, &cron, millis(400));
    tokio::time::sleep(millis(2_500)).await;
    let most = workers.most_at_once.load(Ordering::SeqCst);
    let done = workers.stop().await;
    assert!((2..=4).contains(&most), "{most} at once");
    assert!(done.len() >= 8, "{done:?}");
}

pub(crate) async fn buckets_fill_again(side: &Side) {
    let limiter = Limiter::beside(&side.process());
    let check = async || limiter.check("key", 10.0, 3).await;
    for _ in 0..3 {
        assert_eq!(check().await, Limit::Allowed);
    }
    let Limit::RetryAfter(wait) = check().await else { panic!("a fourth request passed") };
    assert!(wait <= millis(101) && wait >= millis(10), "{wait:?}");
    assert_eq!(limiter.check("other", 10.0, 3).await, Limit::Allowed);
    tokio::time::sleep(wait + millis(20)).await;
    assert_eq!(check().await, Limit::Allowed);
    assert!(matches!(check().await, Limit::RetryAfter(_)));
}
