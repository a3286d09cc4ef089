//! One suite over both sides of the doorbell: in memory and over a real Redis.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod suite;

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use redis::Commands as _;
use spectemp_queue::{
    Doorbell, DoorbellState, Housekeeping, Limit, Limiter, QueueError, RedisOptions, Task, Woken,
};
use suite::{Server, millis, prefix};
use tokio_util::sync::CancellationToken;

/// Runs a suite over both sides.
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::suite::$name(&super::suite::Side::Memory(spectemp_queue::Doorbell::memory())).await;
            })*
        }
        mod redis_server {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::suite::$name(&super::suite::Side::Redis(super::suite::prefix())).await;
            })*
        }
    };
}

both![
    a_ring_wakes_one_who_waits,
    a_ring_before_the_wait_is_not_lost,
    waiting_ends_in_time,
    many_rings_are_few_wakes,
    each_of_several_waiters_is_woken,
    tasks_are_done_once,
    a_task_that_waits_is_not_sent_twice,
    cron_sends_and_one_does,
    a_panic_ends_one_task,
    tasks_run_beside_each_other_but_not_all,
    buckets_fill_again,
];

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_wakes_at_once() {
    let prefix = prefix();
    let (api, worker) = (suite::redis(&prefix), suite::redis(&prefix));
    let mut latencies = Vec::new();
    for _ in 0..200 {
        let waiting = {
            let worker = worker.clone();
            tokio::spawn(async move {
                let woken = worker.wait(millis(5_000)).await;
                (woken, Instant::now())
            })
        };
        tokio::time::sleep(millis(3)).await;
        let rung = Instant::now();
        api.ring(None).await.unwrap();
        let (woken, at) = waiting.await.unwrap();
        assert_eq!(woken, Woken::Rung);
        latencies.push(at.saturating_duration_since(rung));
    }
    latencies.sort();
    let (median, p99) = (latencies[100], latencies[198]);
    println!("ring to wake over redis: median {median:?}, p99 {p99:?}");
    assert!(p99 < millis(100), "p99 {p99:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_workers_ask_redis_seldom() {
    let server = Server::start();
    let bells: Vec<_> = (0..5).map(|_| suite::redis_at(&server.url(), "idle")).collect();
    let waits: Vec<_> = bells
        .iter()
        .cloned()
        .map(|bell| tokio::spawn(async move { bell.wait(millis(60_000)).await }))
        .collect();
    tokio::time::sleep(millis(1_000)).await;
    let commands = |connection: &mut redis::Connection| -> u64 {
        let info: redis::InfoDict = redis::cmd("INFO").arg("stats").query(connection).unwrap();
        info.get("total_commands_processed").unwrap()
    };
    let mut connection = server.connection();
    let before = commands(&mut connection);
    tokio::time::sleep(millis(5_000)).await;
    let spent = commands(&mut connection) - before;
    waits.iter().for_each(|wait| wait.abort());
    // One pop and one ping in two seconds each.
    assert!(spent <= 5 * 6 + 2, "{spent} commands of five idle workers in five seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_grows_in_redis() {
    let server = Server::start();
    let keys =
        |connection: &mut redis::Connection| -> u64 { redis::cmd("DBSIZE").query(connection).unwrap() };
    let mut connection = server.connection();
    for _ in 0..20 {
        // Twenty processes come and go.
        let bell = suite::redis_at(&server.url(), "grow");
        let housekeeping = Housekeeping::beside(&bell);
        for no in 0..200 {
            bell.ring(Some(spectemp_types::JobId::new())).await.unwrap();
            housekeeping.push(Task::Listing { index: format!("i{no}") }).await.unwrap();
        }
        assert_eq!(bell.wait(millis(2_000)).await, Woken::Rung);
    }
    assert!(keys(&mut connection) <= 2, "{} keys", keys(&mut connection));
    for list in ["grow:bell", "grow:tasks"] {
        let length: usize = connection.llen(list).unwrap();
        assert!(length <= 64, "{length} messages in {list}");
        let ttl: i64 = connection.ttl(list).unwrap();
        assert!((1..=600).contains(&ttl), "{list} lives {ttl} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_nobody_here_waits_for_goes_to_another() {
    let prefix = prefix();
    let (busy, idle, api) = (suite::redis(&prefix), suite::redis(&prefix), suite::redis(&prefix));
    // Its pop is still under way when it stops waiting.
    assert_eq!(busy.wait(millis(50)).await, Woken::Timeout);
    api.ring(None).await.unwrap();
    let started = Instant::now();
    assert_eq!(idle.wait(millis(3_000)).await, Woken::Rung);
    assert!(started.elapsed() < millis(500), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_does_not_end_a_wait() {
    let server = Server::start();
    let (api, worker) = (suite::redis_at(&server.url(), "f"), suite::redis_at(&server.url(), "f"));
    let waiting = tokio::spawn(async move { worker.wait(millis(10_000)).await });
    tokio::time::sleep(millis(200)).await;
    let _: () = redis::cmd("FLUSHALL").query(&mut server.connection()).unwrap();
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut server.connection()).unwrap();
    api.ring(None).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Woken::Rung);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_be_gone_and_come_back() {
    let mut server = Server::start();
    let (api, worker) = (suite::redis_at(&server.url(), "g"), suite::redis_at(&server.url(), "g"));
    api.ring(None).await.unwrap();
    assert_eq!(worker.wait(millis(5_000)).await, Woken::Rung);
    server.stop();

    let started = Instant::now();
    let refused = api.ring(None).await.unwrap_err();
    assert!(matches!(refused, QueueError::Down(_)), "{refused}");
    assert!(started.elapsed() < millis(1_000), "ring failed after {:?}", started.elapsed());
    assert!(matches!(api.state(), DoorbellState::Down { .. }));
    let started = Instant::now();
    for _ in 0..100 {
        api.ring(None).await.unwrap_err();
    }
    assert!(started.elapsed() < millis(300), "a hundred rings failed in {:?}", started.elapsed());
    let started = Instant::now();
    assert_eq!(worker.wait(millis(700)).await, Woken::Timeout);
    assert!((millis(650)..millis(1_500)).contains(&started.elapsed()), "{:?}", started.elapsed());

    server.again();
    let waiting = {
        let worker = worker.clone();
        tokio::spawn(async move { worker.wait(millis(10_000)).await })
    };
    let started = Instant::now();
    while api.state() != DoorbellState::Up {
        assert!(started.elapsed() < millis(5_000), "{:?}", api.state());
        tokio::time::sleep(millis(20)).await;
    }
    api.ring(None).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Woken::Rung);
    assert!(started.elapsed() < millis(5_000), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_need_not_be_there_at_the_start() {
    let mut server = Server::start();
    server.stop();
    let bell = suite::redis_at(&server.url(), "late");
    assert_eq!(bell.wait(millis(300)).await, Woken::Timeout);
    assert!(matches!(bell.state(), DoorbellState::Down { .. }));
    server.again();
    let ringer = bell.clone();
    let ringing = tokio::spawn(async move {
        while ringer.ring(None).await.is_err() {
            tokio::time::sleep(millis(20)).await;
        }
    });
    assert_eq!(bell.wait(millis(10_000)).await, Woken::Rung);
    ringing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_down() {
    // A listener that never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bell = suite::redis_at(&format!("redis://{}", listener.local_addr().unwrap()), "h");
    let started = Instant::now();
    bell.ring(None).await.unwrap_err();
    assert!(started.elapsed() < millis(2_000), "{:?}", started.elapsed());
    assert_eq!(bell.wait(millis(200)).await, Woken::Timeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn housekeeping_goes_on_without_redis() {
    let mut server = Server::start();
    let bell = suite::redis_at(&server.url(), "k");
    server.stop();
    let done = Arc::new(Mutex::new(Vec::new()));
    let (seen, stop) = (done.clone(), CancellationToken::new());
    let running = {
        let (housekeeping, stop) = (Housekeeping::beside(&bell), stop.clone());
        let schedule = vec![("* * * * * *".parse().unwrap(), Task::Sweep)];
        let handler = move |task| {
            let seen = seen.clone();
            async move { seen.lock().unwrap().push(task) }
        };
        tokio::spawn(async move { housekeeping.run(handler, schedule, stop).await })
    };
    tokio::time::sleep(millis(3_500)).await;
    stop.cancel();
    tokio::time::timeout(millis(3_000), running).await.unwrap().unwrap();
    let done = done.lock().unwrap();
    assert!((2..=4).contains(&done.len()), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_over_processes_and_without_redis() {
    let mut server = Server::start();
    let limiters: Vec<_> = (0..2).map(|_| Limiter::beside(&suite::redis_at(&server.url(), "l"))).collect();
    let allowed = async |limiter: &Limiter, key: &str| {
        let mut allowed = 0;
        for _ in 0..20 {
            allowed += u32::from(limiter.check(key, 0.01, 5).await == Limit::Allowed);
        }
        allowed
    };
    let both = allowed(&limiters[0], "one").await + allowed(&limiters[1], "one").await;
    assert_eq!(both, 5, "a bucket is shared");
    let ttl: i64 = server.connection().pttl("l:limit:one").unwrap();
    assert!(ttl > 0, "a bucket is kept for ever");
    server.stop();
    assert_eq!(allowed(&limiters[0], "two").await, 5, "each process limits for itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_a_server_without_it_is_an_error_and_no_panic() {
    let server = Server::start();
    let bell = suite::redis_at(&server.url().replace("redis://", "rediss://"), "tls");
    assert!(matches!(bell.ring(None).await, Err(QueueError::Down(_))));
    assert_eq!(bell.wait(millis(100)).await, Woken::Timeout);
}

#[test]
fn a_url_that_cannot_be_used_is_refused_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    for url in ["", "localhost", "http://localhost"] {
        let error = Doorbell::redis(url, RedisOptions::default()).unwrap_err();
        assert!(matches!(error, QueueError::Url(_)), "{error}");
    }
}
