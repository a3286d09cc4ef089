//! What several workers, clients and a sweep may do.

use proptest::prelude::*;

use super::jobs::{JOBS, VIDEOS};

pub(super) const WORKERS: usize = 3;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Submit {
        jobs: Vec<usize>,
    },
    Claim {
        worker: usize,
        limit: usize,
        prefer: Option<usize>,
        short: bool,
    },
    Checkpoint {
        lease: usize,
        skip: i8,
    },
    RestOn {
        lease: usize,
        basis: usize,
    },
    Finish {
        lease: usize,
    },
    Fail {
        lease: usize,
    },
    Release {
        lease: usize,
    },
    PutBack {
        lease: usize,
        wait: bool,
    },
    Heartbeat {
        lease: usize,
    },
    /// Every lease that has run out is taken back; their holders live on as late writers.
    Expire,
    Cancel {
        job: usize,
    },
    Retry {
        job: usize,
    },
    RetryFailed,
    Priority {
        job: usize,
        priority: i32,
    },
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let lease = || 0..20_usize;
    let job = || 0..JOBS;
    prop_oneof![
        3 => prop::collection::vec(0..JOBS, 1..4).prop_map(|jobs| Step::Submit { jobs }),
        7 => (0..WORKERS, 1..4_usize, prop::option::of(0..VIDEOS), any::<bool>())
            .prop_map(|(worker, limit, prefer, short)| Step::Claim { worker, limit, prefer, short }),
        6 => (lease(), prop_oneof![8 => Just(0_i8), 1 => Just(-1), 1 => Just(1)])
            .prop_map(|(lease, skip)| Step::Checkpoint { lease, skip }),
        1 => (lease(), 0..2_usize).prop_map(|(lease, basis)| Step::RestOn { lease, basis }),
        2 => lease().prop_map(|lease| Step::Finish { lease }),
        1 => lease().prop_map(|lease| Step::Fail { lease }),
        1 => lease().prop_map(|lease| Step::Release { lease }),
        2 => (lease(), any::<bool>()).prop_map(|(lease, wait)| Step::PutBack { lease, wait }),
        1 => lease().prop_map(|lease| Step::Heartbeat { lease }),
        5 => Just(Step::Expire),
        1 => job().prop_map(|job| Step::Cancel { job }),
        2 => job().prop_map(|job| Step::Retry { job }),
        1 => Just(Step::RetryFailed),
        1 => (job(), -1..2).prop_map(|(job, priority)| Step::Priority { job, priority }),
    ]
}
