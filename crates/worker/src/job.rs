//! One claimed job on its way to an answer: attempts, each a session that goes on after the committed rounds.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use spectemp_engine::{FrameSource, Session, Setup, Vlm};
use spectemp_store::{Claimed, Lease, StoreError};
use spectemp_types::{JobSpec, Round, Strategy, Trace, TraceVideo};
use tracing::Instrument as _;

use crate::{
    basis::Basis,
    ending::write_end,
    error::{JobError, Patience, Remedy, backoff},
    event::{Event, JobName},
    hold::{Hold, Kept},
    meter::Metered,
    shared::{Shared, patiently},
    tap::Tap,
};

/// How long a session may wait for others (a server that hangs) after its lease was lost.
const LET_GO: Duration = Duration::from_secs(5);

/// A job that this process holds the lease of.
pub(crate) struct RunningJob {
    shared: Arc<Shared>,
    lease: Lease,
    hold: Hold,
    /// Keeps the lease alive, where it has a time, until the job's end is written.
    kept: Option<Kept>,
    name: JobName,
    /// What was asked, with the whole URI of the video.
    spec: JobSpec,
    /// What the ledger holds.
    rounds: Vec<Round>,
    /// Why it began again, where it did.
    restarted: Option<String>,
    /// Passing faults in a row.
    tries: u32,
}

impl RunningJob {
    /// `spec` is the claimed job's own, with the URI as the user gave it.
    pub(crate) fn new(
        shared: Arc<Shared>,
        claimed: Claimed,
        spec: JobSpec,
        hold: Hold,
        kept: Option<Kept>,
    ) -> Self {
        let name = JobName { job: claimed.job.id, id: spec.id.as_str().into() };
        let tries = claimed.job.tries;
        let Claimed { lease, rounds, .. } = claimed;
        Self { shared, lease, hold, kept, name, spec, rounds, restarted: None, tries }
    }

    /// Runs the job to its end and writes it down. An error is one that ends the whole run.
    pub(crate) async fn run(self) -> Result<(), JobError> {
        let span = tracing::info_span!("job", job.id = %self.name.job, job.epoch = self.lease.epoch());
        spectemp_telemetry::join_job(&span, self.name.job.as_uuid().as_u128());
        self.run_here().instrument(span).await
    }

    async fn run_here(mut self) -> Result<(), JobError> {
        self.tell(Event::Started { name: self.name.clone(), rounds: self.rounds.len() as u32 });
        let ended = self.try_until_done().await;
        let Self { shared, lease, hold, kept, name, tries, .. } = self;
        let (outcome, result) = write_end(&shared, &hold, lease, &name, (ended, tries)).await;
        drop(kept);
        shared.tell(Event::Ended { name, outcome });
        result
    }

    async fn try_until_done(&mut self) -> Result<Trace, JobError> {
        let patience = self.shared.patience;
        if patience == Patience::Wait {
            self.tries = 0;
        }
        loop {
            let before = self.rounds.len();
            let hold = self.hold.clone();
            // A bug that panics in the middle of one job must not take the others with it.
            let attempt = AssertUnwindSafe(self.attempt()).catch_unwind();
            let ended = tokio::select! {
                biased;
                ended = attempt => ended.unwrap_or_else(|panic| Err(panicked(&*panic))),
                () = overdue(&hold) => Err(JobError::Lost),
            };
            let error = match ended {
                Ok(trace) => return Ok(trace),
                Err(error) => error,
            };
            self.tries = if self.rounds.len() > before { 1 } else { self.tries + 1 };
            if error.remedy(patience) == Remedy::Retry {
                self.shared.shelf.forget(&self.spec.video);
            }
            let again = error.remedy(patience) == Remedy::Retry && self.tries <= self.shared.options.retries;
            if !again || patience == Patience::PutBack {
                return Err(error);
            }
            self.wait(&error).await?;
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
        if let Some(restarted) = self.restarted.as_ref().filter(|_| self.rounds.is_empty()) {
            session.note(restarted.clone());
        }
        loop {
            self.go_on()?;
            let span = tracing::info_span!("round", round.no = round_no.load(Ordering::Relaxed));
            let Some(round) = self.round(&mut session, &tap).instrument(span).await? else { break };
            round_no.store(round.no + 1, Ordering::Relaxed);
            self.rounds.push(round.clone());
            self.tell(Event::Round { name: self.name.clone(), round: Arc::new(round) });
        }
        self.trace(session, seen)
    }

    /// The next round, committed.
    async fn round(&self, session: &mut Session, tap: &Tap) -> Result<Option<Round>, JobError> {
        let Some(round) = session.next_round().await? else { return Ok(None) };
        // A session may come to the end of its round after its lease was lost.
        if self.hold.is_lost() {
            return Err(JobError::Lost);
        }
        tap.keep(self.shared.store.objects(), self.name.job, &round).await?;
        self.checkpoint(&round).await?;
        Ok(Some(round))
    }

    async fn checkpoint(&self, round: &Round) -> Result<(), JobError> {
        let (ledger, mut again) = (self.shared.store.ledger(), false);
        let write = || {
            let committed_before = std::mem::replace(&mut again, true);
            async move {
                match ledger.checkpoint(&self.lease, round).await {
                    // The connection broke after the commit and before the word of it.
                    Err(StoreError::Gap { committed, .. })
                        if committed_before && committed == round.no + 1 =>
                    {
                        Ok(())
                    }
                    result => result,
                }
            }
        };
        Ok(patiently(&self.shared, &self.hold, write).await?)
    }

    /// Ties the rounds to what they rest on; those that rest on something else are dropped.
    async fn rest_on(&mut self, seen: &TraceVideo) -> Result<(), JobError> {
        let target = self.shared.models.target.card();
        let basis = Basis::new(seen, target, self.draft().map(|draft| draft.card()));
        let text = basis.text().map_err(|cause| JobError::Permanent(cause.to_string()))?;
        let other = self.shared.store.ledger().rest_on(&self.lease, &text).await?;
        if let Some(earlier) = other {
            let dropped = self.rounds.len() as u32;
            self.rounds.clear();
            let cause = basis.change_from(&earlier);
            tracing::warn!(job.id = %self.name.job, rounds.dropped = dropped, cause, "job starts again");
            self.restarted =
                Some(format!("the job began again without its {dropped} earlier rounds: {cause}"));
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
            cancel: self.hold.cancel().clone(),
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
        match (self.hold.is_lost(), self.shared.stop.soft.is_cancelled()) {
            (true, _) => Err(JobError::Lost),
            (false, true) => Err(JobError::Interrupted),
            (false, false) => Ok(()),
        }
    }

    async fn wait(&self, error: &JobError) -> Result<(), JobError> {
        let after = backoff(self.shared.options.first_wait, self.tries, self.shared.longest_wait);
        tracing::warn!(job.id = %self.name.job, error = %error, wait_ms = after.as_millis() as u64, "job is tried again");
        self.tell(Event::Retry { name: self.name.clone(), error: error.to_string(), after });
        tokio::select! {
            () = tokio::time::sleep(after) => Ok(()),
            () = self.shared.stop.soft.cancelled() => Err(JobError::Interrupted),
        }
    }

    fn tell(&self, event: Event) {
        self.shared.tell(event);
    }
}

/// Until a session that has lost its lease should have let go.
async fn overdue(hold: &Hold) {
    hold.lost().await;
    tokio::time::sleep(LET_GO).await;
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> JobError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    JobError::Permanent(format!(
        "the program failed here: {}",
        text.unwrap_or_else(|| "no reason given".to_owned())
    ))
}
