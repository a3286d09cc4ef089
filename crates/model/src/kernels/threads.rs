//! A small pool of worker threads that wakes within microseconds.
//!
//! Generating one token runs a hundred parallel regions of some tens of microseconds each, so workers spin for a moment before they sleep.
//! A region's tasks are handed out one by one, and the caller waits only for workers that took part:
//! a worker that another process keeps from running delays nobody.
//! Hazard: workers see the caller's closure through an erased lifetime; [`Threads::run`] must not return, nor unwind,
//! before the last of them has left (`Region`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Looks at the epoch before a worker sleeps: about 50 µs.
const SPINS: usize = 2000;
/// Bit of the gate that keeps workers out; the bits below count those inside.
const CLOSED: usize = 1 << 31;

/// A handle on the threads that one model computes with; cheap to clone.
#[derive(Clone, Debug)]
pub struct Threads {
    pool: Arc<Pool>,
}

impl Threads {
    /// A pool of `count` threads, the calling one included; 0 means one per core.
    ///
    /// Where the system gives fewer threads than asked for, the pool is smaller.
    pub fn new(count: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if count == 0 { cores } else { count };
        let shared = Arc::new(Shared::default());
        let spawn = |index: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("kernels-{index}");
            std::thread::Builder::new().name(name).spawn(move || shared.work()).ok()
        };
        let workers = (1..count).filter_map(spawn).collect();
        Self { pool: Arc::new(Pool { shared, workers, caller: Mutex::new(()) }) }
    }

    /// Threads that compute, the calling one included.
    pub fn count(&self) -> usize {
        self.pool.workers.len() + 1
    }

    /// Calls `work` with each of `0..tasks` once, on any thread and in any order, and returns when all are done.
    ///
    /// A call from inside a task, or while another thread is in a region, runs on the calling thread alone.
    pub(crate) fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        let alone = || (0..tasks).for_each(work);
        if tasks <= 1 || self.pool.workers.is_empty() {
            return alone();
        }
        let Ok(_caller) = self.pool.caller.try_lock() else { return alone() };
        let job = Job { tasks, work, next: AtomicUsize::new(0), panicked: AtomicBool::new(false) };
        let region = Region::open(&self.pool.shared, &job);
        job.take_part();
        drop(region);
        if job.panicked.load(Ordering::Acquire) {
            std::panic::resume_unwind(Box::new("a task of a parallel region panicked"));
        }
    }

    /// Calls `work` with each item and its index, as [`Threads::run`] does.
    #[expect(unsafe_code, reason = "each task takes one item of a mutable slice")]
    pub(crate) fn for_each<T: Send>(&self, items: &mut [T], work: &(dyn Fn(usize, &mut T) + Sync)) {
        let start = AtomicPtr::new(items.as_mut_ptr());
        self.run(items.len(), &|index| {
            // SAFETY: indices are below the length, and `run` gives each to one task alone while `items` is borrowed.
            work(index, unsafe { &mut *start.load(Ordering::Relaxed).add(index) });
        });
    }
}

/// One parallel region's tasks.
struct Job<'a> {
    tasks: usize,
    work: &'a (dyn Fn(usize) + Sync),
    next: AtomicUsize,
    panicked: AtomicBool,
}

impl Job<'_> {
    fn take_part(&self) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= self.tasks {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| (self.work)(task))).is_err() {
                self.panicked.store(true, Ordering::Release);
            }
        }
    }
}

/// An open region: dropping it keeps later workers out and waits for those inside.
struct Region<'a> {
    shared: &'a Shared,
}

impl<'a> Region<'a> {
    fn open(shared: &'a Shared, job: &'a Job<'_>) -> Self {
        shared.job.store(std::ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        shared.gate.store(0, Ordering::Release);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            // Under the lock, so that a worker between its last look and its sleep is not missed.
            let _asleep = shared.asleep.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        Self { shared }
    }
}

impl Drop for Region<'_> {
    fn drop(&mut self) {
        let mut inside = self.shared.gate.fetch_or(CLOSED, Ordering::AcqRel);
        let mut looks = 0_usize;
        while inside & !CLOSED != 0 {
            looks += 1;
            // A worker inside may have lost its core to someone else, us for example.
            if looks.is_multiple_of(SPINS) {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
            inside = self.shared.gate.load(Ordering::Acquire);
        }
    }
}

/// What the workers see.
#[derive(Debug)]
struct Shared {
    /// Counts regions; a change tells workers of a new one.
    epoch: AtomicUsize,
    gate: AtomicUsize,
    job: AtomicPtr<()>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    asleep: Mutex<()>,
    wake: Condvar,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            epoch: AtomicUsize::new(0),
            gate: AtomicUsize::new(CLOSED),
            job: AtomicPtr::default(),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            asleep: Mutex::new(()),
            wake: Condvar::new(),
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut seen = 0;
        loop {
            seen = self.next_epoch(seen);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            if self.enter() {
                self.take_part();
                self.gate.fetch_sub(1, Ordering::Release);
            }
        }
    }

    #[expect(unsafe_code, reason = "the job lives on the caller's stack, its lifetime is erased")]
    fn take_part(&self) {
        let job = self.job.load(Ordering::Relaxed).cast::<Job<'static>>();
        // SAFETY: the gate was open when this worker entered and counts it, so the region of this job has not been
        // dropped, and will not be before the worker leaves; the job outlives its region.
        unsafe { &*job }.take_part();
    }

    fn next_epoch(&self, seen: usize) -> usize {
        for _ in 0..SPINS {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != seen {
                break epoch;
            }
            asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        };
        drop(asleep);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        epoch
    }

    /// Counts this worker in, unless the region is closed.
    fn enter(&self) -> bool {
        let count_in = |gate: usize| (gate & CLOSED == 0).then_some(gate + 1);
        self.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, count_in).is_ok()
    }
}

#[derive(Debug)]
struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a region is open.
    caller: Mutex<()>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        {
            let _asleep = self.shared.asleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.epoch.fetch_add(1, Ordering::SeqCst);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches what its tasks panic with, so there is nothing to hear of here.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let threads = Threads::new(3);
        for tasks in [0, 1, 2, 7, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            threads.run(tasks, &|task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{tasks} tasks");
        }
    }

    #[test]
    fn regions_of_many_callers_and_inside_each_other_end() {
        let threads = Threads::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        threads
                            .run(5, &|_| threads.run(3, &|task| _ = sum.fetch_add(task, Ordering::Relaxed)));
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 200 * 5 * 3);
    }

    #[test]
    fn workers_wake_after_they_slept() {
        let threads = Threads::new(2);
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let ids = Mutex::new(std::collections::HashSet::new());
            threads.run(2, &|_| {
                ids.lock().unwrap().insert(std::thread::current().id());
                // Long enough for the other thread to take the other task.
                std::thread::sleep(std::time::Duration::from_millis(50));
            });
            assert_eq!(ids.into_inner().unwrap().len(), 2);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let threads = Threads::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| threads.run(4, &|task| assert!(task != 2))));
        assert!(caught.is_err());
        let sum = AtomicUsize::new(0);
        threads.run(4, &|task| _ = sum.fetch_add(task, Ordering::Relaxed));
        assert_eq!(sum.into_inner(), 6);
    }
}
