//! Who is hit when.

use std::{
    path::PathBuf,
    process::Child,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{Size, WORKERS, setting::Setting};
use crate::generations::Random;

/// How many blows of each kind.
#[derive(Clone, Copy)]
pub(crate) struct Blows {
    pub(crate) kills: usize,
    pub(crate) redis_flushes: usize,
    pub(crate) redis_restarts: usize,
    pub(crate) postgres_restarts: usize,
}

/// One process of a worker, from its start to its end.
pub(crate) struct Life {
    pub(crate) log: PathBuf,
    pub(crate) killed: bool,
}

/// What was done, and what is left to look at.
pub(crate) struct Told {
    pub(crate) seed: u64,
    pub(crate) lives: Vec<Life>,
    pub(crate) blows: Blows,
    pub(crate) took: Duration,
}

pub(crate) struct Chaos<'a> {
    setting: &'a Setting,
    seed: u64,
    random: Random,
    lives: Vec<Life>,
    /// The running workers: the process and its place in `lives`.
    workers: Vec<(Child, usize)>,
    done: Blows,
}

impl<'a> Chaos<'a> {
    pub(crate) fn new(setting: &'a Setting) -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let none = Blows { kills: 0, redis_flushes: 0, redis_restarts: 0, postgres_restarts: 0 };
        Self { setting, seed, random: Random(seed), lives: Vec::new(), workers: Vec::new(), done: none }
    }

    /// Starts the workers and hits until all blows are dealt; then waits until no job waits any more.
    pub(crate) fn beat(mut self, size: &Size) -> Told {
        let started = Instant::now();
        (0..WORKERS).for_each(|_| self.start());
        let wanted = size.blows;
        while self.done.kills < wanted.kills {
            std::thread::sleep(size.pause.mul_f64(0.2 + 0.8 * self.random.fraction()));
            assert!(self.setting.waiting() > 0, "all jobs were done after {} kills", self.done.kills);
            self.kill();
            self.servers(wanted);
        }
        let limit = Duration::from_secs(120) + started.elapsed() * 3;
        while self.setting.waiting() > 0 {
            assert!(
                started.elapsed() < limit,
                "{} jobs never ended\n{}",
                self.setting.waiting(),
                self.last_words()
            );
            self.assert_alive();
            std::thread::sleep(Duration::from_millis(200));
        }
        let took = started.elapsed();
        for (mut child, _) in std::mem::take(&mut self.workers) {
            crate::support::signal(&child, "TERM");
            let status = child.wait().unwrap();
            assert!(status.success(), "a worker that was asked to stop ended with {status}");
        }
        Told { seed: self.seed, lives: std::mem::take(&mut self.lives), blows: self.done, took }
    }

    fn start(&mut self) {
        let log = self.setting.place.path(&format!("worker-{}.log", self.lives.len()));
        let child = self.setting.worker(&log);
        self.workers.push((child, self.lives.len()));
        self.lives.push(Life { log, killed: false });
    }

    fn kill(&mut self) {
        self.assert_alive();
        let victim =
            ((self.workers.len() as f64 * self.random.fraction()) as usize).min(self.workers.len() - 1);
        let (mut child, life) = self.workers.swap_remove(victim);
        child.kill().unwrap();
        child.wait().unwrap();
        self.lives[life].killed = true;
        self.done.kills += 1;
        self.start();
    }

    /// The servers' turns, evenly spread over the kills.
    fn servers(&mut self, wanted: Blows) {
        let due = |blows: usize, done: usize, kills: usize| {
            done < blows && kills * (blows + 1) >= wanted.kills * (done + 1)
        };
        let kills = self.done.kills;
        if due(wanted.redis_flushes, self.done.redis_flushes, kills) {
            self.setting.servers.flush_redis();
            self.done.redis_flushes += 1;
        }
        if due(wanted.redis_restarts, self.done.redis_restarts, kills) {
            self.setting.servers.restart("redis");
            self.done.redis_restarts += 1;
        }
        if due(wanted.postgres_restarts, self.done.postgres_restarts, kills) {
            self.setting.servers.restart("postgres");
            self.done.postgres_restarts += 1;
        }
    }

    /// No worker may end by itself, whatever happens to the servers.
    fn assert_alive(&mut self) {
        for (child, life) in &mut self.workers {
            if let Some(status) = child.try_wait().unwrap() {
                let log = std::fs::read_to_string(&self.lives[*life].log).unwrap();
                panic!("a worker ended by itself with {status}:\n{}", tail(&log));
            }
        }
    }

    fn last_words(&self) -> String {
        let words = self.workers.iter().map(|(_, life)| {
            let log = std::fs::read_to_string(&self.lives[*life].log).unwrap();
            tail(&log).to_owned()
        });
        words.collect::<Vec<_>>().join("\n---\n")
    }
}

impl Drop for Chaos<'_> {
    fn drop(&mut self) {
        for (child, _) in &mut self.workers {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The last few thousand bytes.
fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(4000);
    &text[text.ceil_char_boundary(from)..]
}
