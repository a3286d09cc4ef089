//! A model of the ledger in a few lines: what it should hold after each step, on one machine or with several workers.
//!
//! What must hold: a job has at most one answer, no committed round is lost, changed or repeated, and a lease that was
//! overtaken changes nothing.

use std::time::Duration;

use spectemp_types::{JobId, JobStatus, Round};

use super::{
    jobs::{JOBS, finish, round, spec, video, video_uri},
    steps::{LONG, LeaseTime, Step},
};
use crate::{
    Claim, DEFAULT_TENANT, JobFilter, Lease, Ledger, NewJob, StoreError, Submission,
    ledger::{Counts, claim::ALONE_AFTER},
};

/// What the ledger should hold of one job.
#[derive(Clone, Debug)]
pub(super) struct Model {
    id: JobId,
    /// Order of submission.
    order: usize,
    priority: i32,
    status: JobStatus,
    epoch: u32,
    worker: usize,
    /// Its lease has run out (or will before the next sweep).
    short: bool,
    /// It waits for longer than the test lasts.
    delayed: bool,
    rounds: Vec<Round>,
    basis: Option<usize>,
    progressed: bool,
    crashes: u32,
    tries: u32,
    answer: Option<u32>,
}

impl Model {
    fn anew(&mut self) {
        (self.status, self.crashes, self.tries, self.delayed) = (JobStatus::Queued, 0, 0, false);
    }

    fn give_up(&mut self, status: JobStatus) {
        self.status = status;
        self.short = false;
    }

    /// Its worker is gone: back in the queue, or failed at the `fatal`th death in a row without a round between.
    fn die(&mut self, fatal: u32) {
        self.give_up(JobStatus::Queued);
        self.epoch += 1;
        self.delayed = false;
        if self.progressed {
            (self.crashes, self.tries) = (0, 0);
        } else {
            self.crashes += 1;
        }
        if self.crashes >= fatal {
            self.status = JobStatus::Failed;
        }
    }
}

pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) batch: String,
    /// Deaths in a row after which a job fails.
    fatal: u32,
    jobs: Vec<Option<Model>>,
    /// All leases ever given, as (job, epoch): late writers come back with any of them.
    leases: Vec<(usize, u32)>,
    submitted: usize,
}

impl World {
    pub(super) fn new(ledger: Ledger, batch: impl Into<String>, fatal: u32) -> Self {
        let jobs = vec![None; JOBS];
        Self { ledger, batch: batch.into(), fatal, jobs, leases: vec![], submitted: 0 }
    }

    pub(super) async fn take(&mut self, step: Step) {
        match step {
            Step::Submit { jobs } => self.submit(&jobs).await,
            Step::Claim { worker, limit, prefer, lease } => self.claim(worker, limit, prefer, lease).await,
            Step::Checkpoint { lease, skip } => self.checkpoint(lease, skip).await,
            Step::RestOn { lease, basis } => self.rest_on(lease, basis).await,
            Step::Finish { lease } => self.end(lease, JobStatus::Answered).await,
            Step::Fail { lease } => self.end(lease, JobStatus::Failed).await,
            Step::Release { lease } => self.end(lease, JobStatus::Queued).await,
            Step::PutBack { lease, wait } => self.put_back(lease, wait).await,
            Step::Heartbeat { lease } => self.heartbeat(lease).await,
            Step::Expire => self.expire().await,
            Step::Cancel { job } => self.cancel(job).await,
            Step::Retry { job } => self.retry(job).await,
            Step::RetryFailed => {
                let failed = self.all(JobStatus::Failed);
                let retried = self.ledger.retry_failed(DEFAULT_TENANT, &self.batch).await.unwrap();
                assert_eq!(retried, failed.len() as u64);
                failed.into_iter().for_each(|job| self.model(job).anew());
            }
            Step::Priority { job, priority } => self.prioritize(job, priority).await,
        }
    }

    fn model(&mut self, job: usize) -> &mut Model {
        self.jobs[job].as_mut().unwrap()
    }

    fn seen(&self, job: usize) -> &Model {
        self.jobs[job].as_ref().unwrap()
    }

    fn all(&self, status: JobStatus) -> Vec<usize> {
        let is = |job: &usize| self.jobs[*job].as_ref().is_some_and(|model| model.status == status);
        (0..JOBS).filter(is).collect()
    }

    fn holds(&self, job: usize, epoch: u32) -> bool {
        self.seen(job).status == JobStatus::Running && self.seen(job).epoch == epoch
    }

    fn name(&self, worker: usize) -> String {
        format!("{} {worker}", self.batch)
    }

    async fn submit(&mut self, jobs: &[usize]) {
        let new: Vec<NewJob> = jobs
            .iter()
            .map(|job| NewJob { priority: (*job % 2) as i32, ..NewJob::from(spec(*job)) })
            .collect();
        let submissions = self.ledger.submit_jobs(DEFAULT_TENANT, &self.batch, &new).await.unwrap();
        assert_eq!(submissions.len(), jobs.len());
        for (job, submission) in jobs.iter().copied().zip(submissions) {
            match (submission, &self.jobs[job]) {
                (Submission::New(id), None) => {
                    self.submitted += 1;
                    self.jobs[job] = Some(Model {
                        id,
                        order: self.submitted,
                        priority: (job % 2) as i32,
                        status: JobStatus::Queued,
                        epoch: 0,
                        worker: 0,
                        short: false,
                        delayed: false,
                        rounds: vec![],
                        basis: None,
                        progressed: false,
                        crashes: 0,
                        tries: 0,
                        answer: None,
                    });
                }
                (Submission::Existing { job, status }, Some(model)) => {
                    assert_eq!((job, status), (model.id, model.status));
                }
                (other, model) => panic!("{other:?} for {model:?}"),
            }
        }
    }

    /// The jobs that a claim must give, in order.
    fn expected_claim(&self, worker: usize, limit: usize, prefer: Option<usize>) -> Vec<usize> {
        let running: Vec<usize> =
            self.all(JobStatus::Running).into_iter().filter(|job| self.seen(*job).worker == worker).collect();
        if running.iter().any(|job| self.seen(*job).crashes >= ALONE_AFTER) {
            return vec![];
        }
        let mut waiting: Vec<usize> =
            self.all(JobStatus::Queued).into_iter().filter(|job| !self.seen(*job).delayed).collect();
        waiting.sort_by_key(|job| (-self.seen(*job).priority, self.seen(*job).order));
        let (mut alone, ready): (Vec<usize>, Vec<usize>) =
            waiting.into_iter().partition(|job| self.seen(*job).crashes >= ALONE_AFTER);
        let of = |wanted: usize| {
            ready.iter().copied().filter(|job| video(*job) == wanted).take(limit).collect::<Vec<_>>()
        };
        if let Some(preferred) = prefer.map(of).filter(|jobs| !jobs.is_empty()) {
            return preferred;
        }
        match ready.first() {
            Some(best) => of(video(*best)),
            None if running.is_empty() => {
                alone.sort_by_key(|job| (self.seen(*job).crashes, self.seen(*job).order));
                alone.into_iter().take(1).collect()
            }
            None => vec![],
        }
    }

    async fn claim(&mut self, worker: usize, limit: usize, prefer: Option<usize>, lease: LeaseTime) {
        let expected = self.expected_claim(worker, limit, prefer);
        let (uri, name) = (prefer.map(video_uri), self.name(worker));
        let claim = Claim {
            batch: Some(&self.batch),
            worker: &name,
            limit,
            prefer_video: uri.as_ref(),
            lease: lease.duration(),
        };
        let claimed = self.ledger.claim(&claim).await.unwrap();
        let ids: Vec<JobId> = claimed.iter().map(|claimed| claimed.job.id).collect();
        let wanted: Vec<JobId> = expected.iter().map(|job| self.seen(*job).id).collect();
        assert_eq!(ids, wanted);
        for (job, claimed) in expected.into_iter().zip(claimed) {
            let model = self.model(job);
            (model.status, model.worker, model.short, model.progressed) =
                (JobStatus::Running, worker, lease == LeaseTime::Short, false);
            model.epoch += 1;
            let epoch = model.epoch;
            assert_eq!((claimed.lease.epoch(), &claimed.rounds), (epoch, &model.rounds));
            assert_eq!(claimed.job.spec, spec(job));
            self.leases.push((job, epoch));
        }
    }

    fn some_lease(&self, lease: usize) -> Option<(usize, u32, Lease)> {
        let last = self.leases.len().checked_sub(1)?;
        let (job, epoch) = self.leases[last - lease % self.leases.len()];
        Some((job, epoch, Lease::new(self.seen(job).id, epoch)))
    }

    async fn checkpoint(&mut self, lease: usize, skip: i8) {
        let Some((job, epoch, lease)) = self.some_lease(lease) else { return };
        let committed = self.seen(job).rounds.len() as u32;
        let Some(no) = committed.checked_add_signed(skip.into()) else { return };
        let round = round(job, no, epoch);
        let result = self.ledger.checkpoint(&lease, &round).await;
        match (self.holds(job, epoch), skip) {
            (true, 0) => {
                result.unwrap();
                let model = self.model(job);
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
        let held = self.holds(job, epoch);
        let result = self.ledger.rest_on(&lease, &basis.to_string()).await;
        if !held {
            assert!(matches!(result, Err(StoreError::Stale { .. })), "{result:?}");
            return;
        }
        let model = self.model(job);
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
        let held = self.holds(job, epoch);
        let result = match status {
            JobStatus::Answered => finish(&self.ledger, lease).await,
            JobStatus::Failed => self.ledger.fail(lease, "broken", true).await,
            _ => self.ledger.release(lease).await,
        };
        if !held {
            assert!(matches!(result, Err(StoreError::Stale { .. })), "{result:?}");
            return;
        }
        result.unwrap();
        let model = self.model(job);
        model.give_up(status);
        if status == JobStatus::Queued && model.progressed {
            model.tries = 0;
        }
        if status == JobStatus::Answered {
            assert_eq!(model.answer, None);
            model.answer = Some(epoch);
        }
    }

    async fn put_back(&mut self, lease: usize, wait: bool) {
        let Some((job, epoch, lease)) = self.some_lease(lease) else { return };
        let held = self.holds(job, epoch);
        let after = if wait { LONG } else { Duration::ZERO };
        let result = self.ledger.put_back(lease, "503", after).await;
        if !held {
            assert!(matches!(result, Err(StoreError::Stale { .. })), "{result:?}");
            return;
        }
        result.unwrap();
        let model = self.model(job);
        model.give_up(JobStatus::Queued);
        model.tries = if model.progressed { 1 } else { model.tries + 1 };
        model.delayed = wait;
    }

    async fn heartbeat(&mut self, lease: usize) {
        let Some((job, epoch, lease)) = self.some_lease(lease) else { return };
        let lost = self.ledger.heartbeat(&[&lease], LONG).await.unwrap();
        assert_eq!(lost.is_empty(), self.holds(job, epoch));
        if lost.is_empty() {
            self.model(job).short = false;
        }
    }

    async fn expire(&mut self) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let (requeued, failed) = self.lose(|model| model.short);
        let reclaimed = self.ledger.expire().await.unwrap();
        assert_eq!((reclaimed.requeued, reclaimed.dead), (requeued, failed));
    }

    /// Running jobs that `gone` picks lose their workers; how many wait again, and how many have failed.
    pub(super) fn lose(&mut self, gone: impl Fn(&Model) -> bool) -> (u64, u64) {
        let (fatal, mut counts) = (self.fatal, (0, 0));
        let running = self.jobs.iter_mut().flatten().filter(|model| model.status == JobStatus::Running);
        for model in running.filter(|model| gone(model)) {
            model.die(fatal);
            match model.status {
                JobStatus::Failed => counts.1 += 1,
                _ => counts.0 += 1,
            }
        }
        counts
    }

    async fn cancel(&mut self, job: usize) {
        if self.jobs[job].is_none() {
            return;
        }
        let status = self.ledger.cancel(self.seen(job).id).await.unwrap();
        let model = self.model(job);
        if matches!(model.status, JobStatus::Queued | JobStatus::Running) {
            model.give_up(JobStatus::Cancelled);
            model.epoch += 1;
        }
        assert_eq!(status, model.status);
    }

    async fn retry(&mut self, job: usize) {
        if self.jobs[job].is_none() {
            return;
        }
        let status = self.ledger.retry(self.seen(job).id).await.unwrap();
        let model = self.model(job);
        if matches!(model.status, JobStatus::Failed | JobStatus::Cancelled) {
            model.anew();
        }
        assert_eq!(status, model.status);
    }

    async fn prioritize(&mut self, job: usize, priority: i32) {
        if self.jobs[job].is_none() {
            return;
        }
        self.ledger.set_priority(self.seen(job).id, priority).await.unwrap();
        let model = self.model(job);
        if matches!(model.status, JobStatus::Queued | JobStatus::Running) {
            model.priority = priority;
        }
    }

    pub(super) async fn check(&self) {
        let filter = JobFilter { batch: Some(&self.batch), ..JobFilter::default() };
        let rows = self.ledger.jobs(&filter, None, 100).await.unwrap().rows;
        assert_eq!(rows.len(), self.submitted);
        let answers = self.ledger.answers_of(&filter, None, 100).await.unwrap().rows;
        let mut counts = Counts::default();
        for model in self.jobs.iter().flatten() {
            let row = rows.iter().find(|row| row.id == model.id).unwrap();
            assert_eq!(
                (row.status, row.epoch, row.crashes, row.priority, row.rounds as usize),
                (model.status, model.epoch, model.crashes, model.priority, model.rounds.len())
            );
            let running = model.status == JobStatus::Running;
            assert_eq!(row.worker, running.then(|| self.name(model.worker)));
            if running || model.status == JobStatus::Queued {
                assert_eq!(row.tries, if running && model.progressed { 0 } else { model.tries });
            }
            assert_eq!(self.ledger.rounds(model.id).await.unwrap(), model.rounds);
            let answer = answers.iter().find(|answer| answer.job.id == model.id);
            let text = answer.map(|answer| answer.answer.answer.text.clone());
            assert_eq!(text, model.answer.map(|epoch| epoch.to_string()));
            match model.status {
                JobStatus::Queued => counts.queued += 1,
                JobStatus::Running => counts.running += 1,
                JobStatus::Answered => counts.answered += 1,
                JobStatus::Failed => counts.failed += 1,
                JobStatus::Cancelled => counts.cancelled += 1,
            }
        }
        assert_eq!(self.ledger.counts_of(None, Some(&self.batch)).await.unwrap(), counts);
    }
}
