//! Random interleavings of everything that can happen to the ledger of a home, against a model of a few lines. What
//! several workers do to a ledger is in `workers.rs`.
//!
//! What must hold: a job has at most one answer, no committed round is lost, changed or repeated, and a lease that was
//! overtaken (by a restart, a cancellation, a later claim) changes nothing.

use std::path::Path;

use proptest::prelude::*;
use spectemp_types::{JobId, JobStatus, Round};

use super::jobs::{JOBS, VIDEOS, finish, round, spec, video, video_uri};
use crate::{
    Claim, DEFAULT_TENANT, Home, Lease, StoreError, Submission,
    db::Pool,
    ledger::{Counts, claim::ALONE_AFTER},
};

/// A home's ledger: two deaths beside others, eight alone.
const FAIL_AFTER: u32 = ALONE_AFTER + 8;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        job: usize,
    },
    Claim {
        limit: usize,
        prefer: Option<usize>,
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
    Cancel {
        job: usize,
    },
    Retry,
    /// The process dies (its leases live on as late writers) and another one opens the home.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..JOBS).prop_map(|job| Step::Submit { job }),
        4 => (1..4_usize, prop::option::of(0..VIDEOS)).prop_map(|(limit, prefer)| Step::Claim { limit, prefer }),
        6 => (0..20_usize, prop_oneof![8 => Just(0_i8), 1 => Just(-1), 1 => Just(1)])
            .prop_map(|(lease, skip)| Step::Checkpoint { lease, skip }),
        1 => (0..20_usize, 0..2_usize).prop_map(|(lease, basis)| Step::RestOn { lease, basis }),
        2 => (0..20_usize).prop_map(|lease| Step::Finish { lease }),
        1 => (0..20_usize).prop_map(|lease| Step::Fail { lease }),
        1 => (0..20_usize).prop_map(|lease| Step::Release { lease }),
        1 => (0..JOBS).prop_map(|job| Step::Cancel { job }),
        1 => Just(Step::Retry),
        2 => Just(Step::Restart),
    ]
}

/// What the ledger should hold of one job.
#[derive(Clone, Debug)]
struct Model {
    id: JobId,
    /// Order of submission.
    order: usize,
    status: JobStatus,
    epoch: u32,
    rounds: Vec<Round>,
    basis: Option<usize>,
    progressed: bool,
    crashes: u32,
    answer: Option<u32>,
}

struct World {
    home: Option<Home>,
    dir: tempfile::TempDir,
    jobs: Vec<Option<Model>>,
    /// All leases ever given, as (job, epoch): late writers come back with any of them.
    leases: Vec<(usize, u32)>,
    submitted: usize,
}

impl World {
    async fn new() -> Self {
        let dir = crate::test_dir();
        let home = Home::open(dir.path(), false).await.unwrap();
        Self { home: Some(home), dir, jobs: vec![None; JOBS], leases: vec![], submitted: 0 }
    }

    fn home(&self) -> &Home {
        self.home.as_ref().unwrap()
    }

    fn holds(&self, job: usize, epoch: u32) -> bool {
        self.jobs[job]
            .as_ref()
            .is_some_and(|model| model.status == JobStatus::Running && model.epoch == epoch)
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Submit { job } => self.submit(job).await,
            Step::Claim { limit, prefer } => self.claim(limit, prefer).await,
            Step::Checkpoint { lease, skip } => self.checkpoint(lease, skip).await,
            Step::RestOn { lease, basis } => self.rest_on(lease, basis).await,
            Step::Finish { lease } => self.end(lease, JobStatus::Answered).await,
            Step::Fail { lease } => self.end(lease, JobStatus::Failed).await,
            Step::Release { lease } => self.end(lease, JobStatus::Queued).await,
            Step::Cancel { job } => self.cancel(job).await,
            Step::Retry => self.retry().await,
            Step::Restart => self.restart().await,
        }
    }

    async fn submit(&mut self, job: usize) {
        let submissions = self.home().ledger().submit("batch", &[spec(job)]).await.unwrap();
        match (&submissions[0], &self.jobs[job]) {
            (Submission::New(id), None) => {
                self.submitted += 1;
                self.jobs[job] = Some(Model {
                    id: *id,
                    order: self.submitted,
                    status: JobStatus::Queued,
                    epoch: 0,
                    rounds: vec![],
                    basis: None,
                    progressed: false,
                    crashes: 0,
                    answer: None,
                });
            }
            (Submission::Existing { job, status }, Some(model)) => {
                assert_eq!((*job, *status), (model.id, model.status));
            }
            (other, model) => panic!("{other:?} for {model:?}"),
        }
    }

    /// The jobs that a claim must give, in order.
    fn expected_claim(&self, limit: usize, prefer: Option<usize>) -> Vec<usize> {
        let with = |wanted: JobStatus| {
            let mut jobs: Vec<usize> = (0..JOBS)
                .filter(|job| self.jobs[*job].as_ref().is_some_and(|model| model.status == wanted))
                .collect();
            jobs.sort_by_key(|job| self.jobs[*job].as_ref().unwrap().order);
            jobs
        };
        let crashes = |job: &usize| self.jobs[*job].as_ref().unwrap().crashes;
        let running = with(JobStatus::Running);
        if running.iter().any(|job| crashes(job) >= ALONE_AFTER) {
            return vec![];
        }
        let (alone, ready): (Vec<usize>, Vec<usize>) =
            with(JobStatus::Queued).into_iter().partition(|job| crashes(job) >= ALONE_AFTER);
        let of = |wanted: usize| {
            ready.iter().copied().filter(|job| video(*job) == wanted).take(limit).collect::<Vec<_>>()
        };
        if let Some(preferred) = prefer.map(of).filter(|jobs| !jobs.is_empty()) {
            return preferred;
        }
        match ready.first() {
            Some(best) => of(video(*best)),
            None if running.is_empty() => alone.into_iter().min_by_key(crashes).into_iter().collect(),
            None => vec![],
        }
    }

    async fn claim(&mut self, limit: usize, prefer: Option<usize>) {
        let expected = self.expected_claim(limit, prefer);
        let uri = prefer.map(video_uri);
        let claim =
            Claim { batch: Some("batch"), worker: "test", limit, prefer_video: uri.as_ref(), lease: None };
        let claimed = self.home().ledger().claim(&claim).await.unwrap();
        let ids: Vec<JobId> = claimed.iter().map(|claimed| claimed.job.id).collect();
        let expected_ids: Vec<JobId> =
            expected.iter().map(|job| self.jobs[*job].as_ref().unwrap().id).collect();
        assert_eq!(ids, expected_ids);
        for (job, claimed) in expected.into_iter().zip(claimed) {
            let model = self.jobs[job].as_mut().unwrap();
            model.status = JobStatus::Running;
            model.epoch += 1;
            model.progressed = false;
            assert_eq!(claimed.lease.epoch(), model.epoch);
            assert_eq!(claimed.rounds, model.rounds);
            assert_eq!(claimed.job.spec, spec(job));
            self.leases.push((job, model.epoch));
        }
    }

    fn some_lease(&self, lease: usize) -> Option<(usize, u32, Lease)> {
        let (job, epoch) =
            *self.leases.get(self.leases.len().checked_sub(1 + lease % self.leases.len().max(1))?)?;
        Some((job, epoch, Lease::new(self.jobs[job].as_ref()?.id, epoch)))
    }

    async fn checkpoint(&mut self, lease: usize, skip: i8) {
        let Some((job, epoch, lease)) = self.some_lease(lease) else { return };
        let committed = self.jobs[job].as_ref().unwrap().rounds.len() as u32;
        let Some(no) = committed.checked_add_signed(skip.into()) else { return };
        let round = round(job, no, epoch);
        let result = self.home().ledger().checkpoint(&lease, &round).await;
        match (self.holds(job, epoch), skip) {
            (true, 0) => {
                result.unwrap();
                let model = self.jobs[job].as_mut().unwrap();
                model.rounds.push(round);
                model.progressed = true;
            }
            (true, _) => {
                assert!(matches!(result, Err(StoreError::Gap { committed: c, .. }) if c == committed))
            }
            (false, _) => assert!(matches!(result, Err(StoreError::Stale { .. }))),
        }
    }

    async fn rest_on(&mut self, lease: usize, basis: usize) {
        let Some((job, epoch, lease)) = self.some_lease(lease) else { return };
        let result = self.home().ledger().rest_on(&lease, &basis.to_string()).await;
        if !self.holds(job, epoch) {
            assert!(matches!(result, Err(StoreError::Stale { .. })), "{result:?}");
            return;
        }
        let model = self.jobs[job].as_mut().unwrap();
        let earlier = model.basis.map_or_else(String::new, |basis| basis.to_string());
        let dropped = model.basis != Some(basis) && !model.rounds.is_empty();
        assert_eq!(result.unwrap(), dropped.then_some(earlier));
        if dropped {
            model.rounds.clear();
            model.progressed = false;
        }
        model.basis = Some(basis);
    }

    async fn end(&mut self, lease: usize, status: JobStatus) {
        let Some((job, epoch, lease)) = self.some_lease(lease) else { return };
        let result = match status {
            JobStatus::Answered => finish(self.home().ledger(), lease).await,
            JobStatus::Failed => self.home().ledger().fail(lease, "broken", true).await,
            _ => self.home().ledger().release(lease).await,
        };
        if !self.holds(job, epoch) {
            assert!(matches!(result, Err(StoreError::Stale { .. })), "{result:?}");
            return;
        }
        result.unwrap();
        let model = self.jobs[job].as_mut().unwrap();
        model.status = status;
        if status == JobStatus::Answered {
            assert_eq!(model.answer, None);
            model.answer = Some(epoch);
        }
    }

    async fn cancel(&mut self, job: usize) {
        let Some(model) = self.jobs[job].clone() else { return };
        let status = self.home().ledger().cancel(model.id).await.unwrap();
        let model = self.jobs[job].as_mut().unwrap();
        if matches!(model.status, JobStatus::Queued | JobStatus::Running) {
            model.status = JobStatus::Cancelled;
            model.epoch += 1;
        }
        assert_eq!(status, model.status);
    }

    async fn retry(&mut self) {
        self.home().ledger().retry_failed(DEFAULT_TENANT, "batch").await.unwrap();
        for model in self.jobs.iter_mut().flatten().filter(|model| model.status == JobStatus::Failed) {
            model.status = JobStatus::Queued;
            model.crashes = 0;
        }
    }

    async fn restart(&mut self) {
        self.home.take().unwrap().close().await;
        self.home = Some(Home::open(self.dir.path(), false).await.unwrap());
        let mut failed = 0;
        for model in self.jobs.iter_mut().flatten().filter(|model| model.status == JobStatus::Running) {
            model.status = JobStatus::Queued;
            model.epoch += 1;
            model.crashes = if model.progressed { 0 } else { model.crashes + 1 };
            if model.crashes >= FAIL_AFTER {
                model.status = JobStatus::Failed;
                failed += 1;
            }
        }
        assert_eq!(self.home().reclaimed().dead, failed);
    }

    async fn check(&self) {
        let ledger = self.home().ledger();
        let mut counts = Counts::default();
        for model in self.jobs.iter().flatten() {
            let job = ledger.job(model.id).await.unwrap();
            assert_eq!((job.status, job.crashes), (model.status, model.crashes));
            assert_eq!(ledger.rounds(model.id).await.unwrap(), model.rounds);
            let answer = ledger.answer(model.id).await.unwrap();
            assert_eq!(answer.map(|row| row.answer.text), model.answer.map(|epoch| epoch.to_string()));
            match model.status {
                JobStatus::Queued => counts.queued += 1,
                JobStatus::Running => counts.running += 1,
                JobStatus::Answered => counts.answered += 1,
                JobStatus::Failed => counts.failed += 1,
                JobStatus::Cancelled => counts.cancelled += 1,
            }
        }
        assert_eq!(ledger.counts(None).await.unwrap(), counts);
        let page = ledger.answers("batch", None, 100).await.unwrap();
        assert_eq!(page.rows.len() as u64, counts.answered);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_its_model(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.take(step).await;
                world.check().await;
            }
            world.home.take().unwrap().close().await;
            sound(world.dir.path()).await;
        });
    }
}

/// SQLite's own check of the file.
async fn sound(dir: &Path) {
    let home = Home::open(dir, false).await.unwrap();
    let Pool::Sqlite(reads) = &home.ledger().reads else { panic!("a home is a file") };
    let word: String = sqlx::query_scalar("pragma integrity_check").fetch_one(reads).await.unwrap();
    assert_eq!(word, "ok");
    home.close().await;
}
