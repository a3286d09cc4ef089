//! What several workers, clients and a sweep may do, and what the one process of a home may.

use std::{ops::Range, time::Duration};

use proptest::prelude::*;

use super::jobs::{JOBS, VIDEOS};

const WORKERS: usize = 3;
/// Leases are chosen by how many were given after them.
const LEASES: Range<usize> = 0..20;
/// Longer than a test lasts.
pub(super) const LONG: Duration = Duration::from_secs(3600);

/// How long a claim's lease holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LeaseTime {
    /// Until its process is gone.
    Endless,
    /// Beyond the end of the test.
    Long,
    /// It runs out at once.
    Short,
}

impl LeaseTime {
    pub(super) fn duration(self) -> Option<Duration> {
        match self {
            Self::Endless => None,
            Self::Long => Some(LONG),
            Self::Short => Some(Duration::ZERO),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Submit {
        jobs: Vec<usize>,
    },
    Claim {
        worker: usize,
        limit: usize,
        prefer: Option<usize>,
        lease: LeaseTime,
    },
    Checkpoint {
        lease: usize,
        skip: i8,
    },
    /// The models or the video are other ones, or the same again.
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

/// What may happen to the ledger of a cluster.
pub(super) fn of_workers() -> impl Strategy<Value = Step> {
    let lease = prop_oneof![Just(LeaseTime::Long), Just(LeaseTime::Short)];
    prop_oneof![
        3 => prop::collection::vec(0..JOBS, 1..4).prop_map(|jobs| Step::Submit { jobs }),
        7 => (0..WORKERS, 1..4_usize, prop::option::of(0..VIDEOS), lease)
            .prop_map(|(worker, limit, prefer, lease)| Step::Claim { worker, limit, prefer, lease }),
        11 => of_a_holder(),
        2 => (LEASES, any::<bool>()).prop_map(|(lease, wait)| Step::PutBack { lease, wait }),
        1 => LEASES.prop_map(|lease| Step::Heartbeat { lease }),
        5 => Just(Step::Expire),
        1 => (0..JOBS).prop_map(|job| Step::Cancel { job }),
        2 => (0..JOBS).prop_map(|job| Step::Retry { job }),
        1 => Just(Step::RetryFailed),
        1 => (0..JOBS, -1..2).prop_map(|(job, priority)| Step::Priority { job, priority }),
    ]
}

/// What may happen to the ledger of a home, besides the end of its process.
pub(super) fn of_a_home() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..JOBS).prop_map(|job| Step::Submit { jobs: vec![job] }),
        4 => (1..4_usize, prop::option::of(0..VIDEOS))
            .prop_map(|(limit, prefer)| Step::Claim { worker: 0, limit, prefer, lease: LeaseTime::Endless }),
        11 => of_a_holder(),
        1 => (0..JOBS).prop_map(|job| Step::Cancel { job }),
        1 => Just(Step::RetryFailed),
    ]
}

/// What the holder of a lease may do, be it overtaken or not.
fn of_a_holder() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (LEASES, prop_oneof![8 => Just(0_i8), 1 => Just(-1), 1 => Just(1)])
            .prop_map(|(lease, skip)| Step::Checkpoint { lease, skip }),
        1 => (LEASES, 0..2_usize).prop_map(|(lease, basis)| Step::RestOn { lease, basis }),
        2 => LEASES.prop_map(|lease| Step::Finish { lease }),
        1 => LEASES.prop_map(|lease| Step::Fail { lease }),
        1 => LEASES.prop_map(|lease| Step::Release { lease }),
    ]
}
