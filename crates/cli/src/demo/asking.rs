//! Putting the archive's questions to each strategy, by the same way as `spectemp run`: jobs in the ledger, leases,
//! committed rounds, traces as objects.
//!
//! Every strategy has a batch, freshly loaded models and freshly opened videos of its own, so that none of them lives
//! on what another one has read or computed. (What the ledger knows of a file, its index, is shared.)

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use spectemp_demo::DemoVideo;
use spectemp_store::{AnswerRow, Home, Submission, location};
use spectemp_types::{JobId, JobSpec, JobStatus, Plan, Question, VideoUri};
use spectemp_worker::{Models, Stop, Work};
use tokio::sync::mpsc::unbounded_channel;

use super::models;
use crate::{
    args::DeviceArgs,
    context::Context,
    models::{load_options, open, start_device},
    run::{progress::Progress, start},
};

/// A strategy and the settings in which it differs from the plan `demo`.
pub(super) struct Contender {
    /// The strategy's name.
    pub(super) name: &'static str,
    set: &'static [&'static str],
}

/// The strategies that are compared; the baselines see as many frames as `spectemp` may at most.
pub(super) const CONTENDERS: [Contender; 3] = [
    Contender { name: "spectemp", set: &["strategy=spectemp"] },
    Contender {
        name: "target-uniform",
        set: &["strategy=target-uniform", "max_rounds=1", "frames_per_round=6"],
    },
    Contender { name: "uniform", set: &["strategy=uniform", "initial_frames=16"] },
];

/// What to ask, and where.
pub(super) struct Asking<'a> {
    pub(super) home: &'a Arc<Home>,
    pub(super) videos: &'a [(DemoVideo, PathBuf)],
    pub(super) name: &'a str,
    pub(super) concurrency: usize,
    pub(super) device: &'a DeviceArgs,
    pub(super) stop: &'a Stop,
    pub(super) context: &'a Context,
}

/// One job and how it ended.
pub(super) struct Asked {
    /// The job.
    pub(super) job: JobId,
    /// Its id.
    pub(super) id: String,
    /// Index of its video.
    pub(super) video: usize,
    /// Index of its question.
    pub(super) question: usize,
    /// Its answer, or why there is none.
    pub(super) answer: Result<Box<AnswerRow>, String>,
}

/// A question as a job, and the indices of its video and question.
struct Posed {
    spec: JobSpec,
    video: usize,
    question: usize,
}

impl Asking<'_> {
    /// The batch of a strategy.
    pub(super) fn batch(&self, contender: &Contender) -> String {
        format!("{}/{}", self.name, contender.name)
    }

    /// Puts all questions to one strategy; none where the user stopped it.
    pub(super) async fn of(&self, contender: &Contender) -> anyhow::Result<Option<Vec<Asked>>> {
        let posed = self.pose(contender)?;
        let specs: Vec<JobSpec> = posed.iter().map(|one| one.spec.clone()).collect();
        let jobs = self.submit(&self.batch(contender), &specs).await?;
        let waiting = jobs.iter().zip(specs).filter(|((_, ended), _)| !ended);
        let work = Work {
            batch: self.batch(contender),
            jobs: waiting.map(|((job, _), spec)| (*job, spec.video)).collect(),
        };
        if !work.jobs.is_empty() {
            self.run(work, jobs.len()).await?;
        }
        if self.stop.soft.is_cancelled() {
            return Ok(None);
        }
        let mut asked = Vec::with_capacity(jobs.len());
        for ((job, _), Posed { spec, video, question }) in jobs.into_iter().zip(posed) {
            asked.push(Asked { job, id: spec.id, video, question, answer: self.ended(job).await? });
        }
        Ok(Some(asked))
    }

    fn pose(&self, contender: &Contender) -> anyhow::Result<Vec<Posed>> {
        let plan = Plan::named("demo")?.set_all(contender.set.iter().copied())?;
        let mut posed = Vec::new();
        for (v, (video, path)) in self.videos.iter().enumerate() {
            let path = path.to_str().with_context(|| format!("path {} is not UTF-8", path.display()))?;
            let uri = location::normalize(&VideoUri::parse(path)?)?;
            for (q, question) in video.questions.iter().enumerate() {
                let scene = video.scenes.get(question.scene).map_or("", |scene| scene.colour.as_str());
                let spec = JobSpec {
                    id: format!("{}-{scene}-{}", video.name, contender.name),
                    video: uri.clone(),
                    question: Question::new(&question.text, Vec::new())?,
                    plan: plan.clone(),
                };
                posed.push(Posed { spec, video: v, question: q });
            }
        }
        Ok(posed)
    }

    /// The jobs' ids, and whether they had ended before (where an earlier run is gone on with).
    async fn submit(&self, batch: &str, specs: &[JobSpec]) -> anyhow::Result<Vec<(JobId, bool)>> {
        let ended = |status| matches!(status, JobStatus::Answered | JobStatus::Failed | JobStatus::Cancelled);
        let submissions = self.home.ledger().submit(batch, specs).await?;
        submissions
            .into_iter()
            .map(|submission| match submission {
                Submission::New(job) => Ok((job, false)),
                Submission::Existing { job, status } => Ok((job, ended(status))),
                Submission::Conflict(conflict) => Err(conflict.into()),
            })
            .collect()
    }

    async fn run(&self, work: Work, total: usize) -> anyhow::Result<()> {
        let options = load_options(self.device, self.context)?;
        let device = start_device(&options, self.context)?;
        let target = open(&device, models::target(), options.clone()).await?;
        let draft = open(&device, models::draft(), options).await?;
        let models = Models { target, draft: Some(draft) };
        let runner = start::runner(self.home, models, self.concurrency, false, self.context)?;
        let (sender, events) = unbounded_channel();
        let follow = tokio::spawn(Progress::new(total, total - work.jobs.len()).follow(events));
        let ended = start::unless_stopped_hard(self.stop, runner.run(work, self.stop.clone(), sender)).await;
        follow.await?;
        match ended {
            Some(ended) => ended.map(drop).context("the questions cannot be asked"),
            None => Ok(()),
        }
    }

    async fn ended(&self, job: JobId) -> anyhow::Result<Result<Box<AnswerRow>, String>> {
        if let Some(answer) = self.home.ledger().answer(job).await? {
            return Ok(Ok(Box::new(answer)));
        }
        let job = self.home.ledger().job(job).await?;
        Ok(Err(job.error.unwrap_or_else(|| format!("the job is {}", job.status))))
    }
}
