//! A small pool of worker threads.

/// A handle on the threads that one model computes with; cheap to clone.
#[derive(Clone, Debug)]
pub struct Threads {
    count: usize,
}

impl Threads {
    /// A pool of `count` threads, the calling one included; 0 means one per core.
    pub fn new(count: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { count: if count == 0 { cores } else { count } }
    }

    /// Threads that compute, the calling one included.
    pub fn count(&self) -> usize {
        self.count
    }
}
