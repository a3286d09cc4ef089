//! One claimed job on its way to an answer: attempts, each a session that goes on after the committed rounds.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures::FutureExt as _;
use spectemp_engine::{FrameSource, Session, Setup, Vlm};
use spectemp_store::{Claimed, Lease};
use spectemp_types::{JobSpec, Round, Strategy, Trace, TraceVideo};

use crate::{
    error::{JobError, Remedy, backoff},
    event::{Event, JobName, Outcome},
    meter::Metered,
    runner::Shared,
    tap::Tap,
};

/// A job that this process holds the lease of.
pub(crate) struct RunningJob {
    shared: Arc<Shared>,
    lease: Lease,
    name: JobName,
    /// What was asked, with the whole URI of the video.
    spec: JobSpec,
    /// What the ledger holds.
    rounds: Vec<Round>,
}

impl RunningJob {
    /// `spec` is the claimed job's own, with the URI as the user gave it.
    pub(crate) fn new(shared: Arc<Shared>, claimed: Claimed, spec: JobSpec) -> Self {
        let name = JobName { job: claimed.job.id, id: spec.id.as_str().into() };
        Self { shared, lease: claimed.lease, name, spec, rounds: claimed.rounds }
    }

    /// Runs the job to its end and writes it down. An error is one that ends the whole run.
    pub(crate) async fn run(mut self) -> Result<(), JobError> {
        self.tell(Event::Started { name: self.name.clone(), rounds: self.rounds.len() as u32 });
        let ended = self.try_until_done().await;
        let (shared, name) = (self.shared.clone(), self.name.clone());
        let (outcome, result) = self.write_end(ended).await;
        shared.tell(Event::Ended { name, outcome });
        result
    }

    async fn try_until_done(&mut self) -> Result<Trace, JobError> {
        let mut tries = 0;
        loop {
            let before = self.rounds.len();
            // A bug that panics in the middle of one job must not take the others with it.
            let attempt = AssertUnwindSafe(self.attempt()).catch_unwind().await;
            let error = match attempt.unwrap_or_else(|panic| Err(panicked(&*panic))) {
                Ok(trace) => return Ok(trace),
                Err(error) => error,
            };
            tries = if self.rounds.len() > before { 1 } else { tries + 1 };
            if error.remedy() != Remedy::Retry || tries > self.shared.options.retries {
                return Err(error);
            }
            self.shared.shelf.forget(&self.spec.video);
            self.wait(tries, &error).await?;
        }
    }

    /// One session, from the committed rounds to the answer.
    async fn attempt(&mut self) -> Result<Trace, JobError> {
        self.go_on()?;
        let video = self.shared.shelf.open(&self.spec.video).await?;
        let seen = video.trace_video();
        self.rest_on(&seen).await?;

        let round_no = Arc::new(AtomicU32::new(self.rounds.len() as u32));
        let tap = Arc::new(Tap::new(video.clone() as Arc<dyn FrameSource>));
        let mut session = Session::new(self.setup(tap.clone(), &round_no), self.rounds.clone())?;
        loop {
            self.go_on()?;
            let Some(round) = session.next_round().await? else { break };
            tap.keep(self.shared.home.objects(), self.name.job, &round).await?;
            self.shared.home.ledger().checkpoint(&self.lease, &round).await?;
            round_no.store(round.no + 1, Ordering::Relaxed);
            self.rounds.push(round.clone());
            self.tell(Event::Round { name: self.name.clone(), round: Arc::new(round) });
        }
        self.trace(session, seen)
    }

    /// Ties the rounds to the version of the video and to the models; rounds of others are dropped.
    async fn rest_on(&mut self, seen: &TraceVideo) -> Result<(), JobError> {
        let basis = serde_json::json!({
            "etag": seen.etag,
            "bytes": seen.bytes,
            "target": self.shared.models.target.card().revision.revision,
            "draft": self.draft().map(|draft| draft.card().revision.revision.clone()),
        });
        let other = self.shared.home.ledger().rest_on(&self.lease, &basis.to_string()).await?;
        if let Some(earlier) = other {
            let dropped = self.rounds.len() as u32;
            self.rounds.clear();
            let cause = changed(&earlier, &basis);
            tracing::warn!(job.id = %self.name.job, rounds.dropped = dropped, cause, "job starts again");
            self.tell(Event::Restarted { name: self.name.clone(), dropped, cause });
        }
        Ok(())
    }

    fn setup(&self, frames: Arc<dyn FrameSource>, round_no: &Arc<AtomicU32>) -> Setup {
        let metered = |model: &Arc<dyn Vlm>, role| -> Arc<dyn Vlm> {
            Arc::new(Metered::new(model.clone(), role, self.name.clone(), round_no.clone()))
        };
        Setup {
            spec: self.spec.clone(),
            target: metered(&self.shared.models.target, "target"),
            draft: self.draft().map(|draft| metered(draft, "draft")),
            frames,
            cancel: self.shared.stop.hard.clone(),
        }
    }

    fn trace(&self, session: Session, video: TraceVideo) -> Result<Trace, JobError> {
        let rounds = session.rounds().to_vec();
        let outcome = session.finish()?;
        Ok(Trace {
            version: Trace::VERSION,
            job_id: self.name.job,
            spec: self.spec.clone(),
            video,
            target: self.shared.models.target.card().revision.clone(),
            draft: self.draft().map(|draft| draft.card().revision.clone()),
            rounds,
            answer: outcome.answer,
            totals: outcome.totals,
        })
    }

    /// The draft, where the strategy asks it.
    fn draft(&self) -> Option<&Arc<dyn Vlm>> {
        let asked = self.spec.plan.settings.strategy == Strategy::SpecTemp;
        self.shared.models.draft.as_ref().filter(|_| asked)
    }

    fn go_on(&self) -> Result<(), JobError> {
        if self.shared.stop.soft.is_cancelled() { Err(JobError::Interrupted) } else { Ok(()) }
    }

    async fn wait(&self, tries: u32, error: &JobError) -> Result<(), JobError> {
        let after = backoff(self.shared.options.first_wait, tries);
        tracing::warn!(job.id = %self.name.job, error = %error, wait_ms = after.as_millis() as u64, "job is tried again");
        self.tell(Event::Retry { name: self.name.clone(), error: error.to_string(), after });
        tokio::select! {
            () = tokio::time::sleep(after) => Ok(()),
            () = self.shared.stop.soft.cancelled() => Err(JobError::Interrupted),
        }
    }

    /// Writes down how the job ended.
    async fn write_end(self, ended: Result<Trace, JobError>) -> (Outcome, Result<(), JobError>) {
        let Self { shared, lease, name, .. } = self;
        let error = match ended {
            Ok(trace) => {
                return match shared.home.finish(lease, &trace).await {
                    Ok(()) => (Outcome::Answered(Arc::new(trace)), Ok(())),
                    Err(error) if error.is_stale() => (Outcome::Lost, Ok(())),
                    Err(error) => (Outcome::Failed(error.to_string()), Err(error.into())),
                };
            }
            Err(error) => error,
        };
        let text = error.to_string();
        let remedy = error.remedy();
        let (outcome, written) = match remedy {
            Remedy::LetGo => (Outcome::Lost, Ok(())),
            Remedy::Release => (Outcome::Released, shared.home.ledger().release(lease).await),
            Remedy::Retry | Remedy::Fail | Remedy::FailAndStop => {
                tracing::info!(job.id = %name.job, error = text, "job failed");
                let permanent = remedy == Remedy::Fail;
                (Outcome::Failed(text.clone()), shared.home.ledger().fail(lease, &text, permanent).await)
            }
        };
        match (remedy, written) {
            (_, Err(stale)) if stale.is_stale() => (Outcome::Lost, Ok(())),
            (_, Err(second)) => (outcome, Err(second.into())),
            (Remedy::FailAndStop, Ok(())) => (outcome, Err(error)),
            (_, Ok(())) => (outcome, Ok(())),
        }
    }

    fn tell(&self, event: Event) {
        self.shared.tell(event);
    }
}

/// What differs between two bases, for people.
fn changed(earlier: &str, now: &serde_json::Value) -> String {
    let earlier: serde_json::Value = serde_json::from_str(earlier).unwrap_or_default();
    let differs = |key: &str| earlier.get(key) != now.get(key);
    match (differs("etag") || differs("bytes"), differs("target") || differs("draft")) {
        (true, true) => "the video and the models have changed",
        (true, false) => "the video has changed",
        (false, _) => "the models have changed",
    }
    .to_owned()
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> JobError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    JobError::Permanent(format!(
        "the program failed here: {}",
        text.unwrap_or_else(|| "no reason given".to_owned())
    ))
}
