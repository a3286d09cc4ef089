//! Lines become jobs: in chunks, so that a million of them need no more memory than a thousand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spectemp_store::{BadLine, BatchManifest, NewJob, Sealing, Submission};
use spectemp_types::{JobText, Line, LineSplitter, MAX_LINE_BYTES, Plan, PlanDefaults, VideoUri};

use crate::{
    error::ApiError,
    jobs::new_job,
    shape::{BadLineView, Intake},
    state::AppState,
    video,
};

/// Jobs that are submitted at once.
const CHUNK: usize = 1000;
/// Bytes of lines after which a chunk is submitted, however few they are: lines may be long.
const CHUNK_BYTES: usize = 4 << 20;
/// Bad lines that a batch keeps; the others are counted.
const KEPT: u64 = 10_000;
/// Bad lines that the answer names.
const NAMED: usize = 100;
/// The longest error of a line that is kept.
const ERROR_BYTES: usize = 1000;

/// The number of what is wrong with a manifest as a whole.
const NO_LINE: u64 = 0;

/// What lines have that do not say otherwise. The ledger keeps it with a manifest, so a new field needs a default.
#[derive(Serialize, Deserialize)]
pub(crate) struct Defaults {
    plan: String,
    set: Vec<String>,
    priority: i32,
    videos: Option<VideoUri>,
}

impl Defaults {
    /// The defaults of a request, over those of the server.
    pub(crate) fn new(
        state: &AppState,
        plan: Option<String>,
        set: &BTreeMap<String, Value>,
        priority: Option<i32>,
        videos: Option<&str>,
    ) -> Result<Self, ApiError> {
        let own = set.iter().map(|(name, value)| format!("{name}={value}"));
        let defaults = Self {
            plan: plan.unwrap_or_else(|| state.settings.plan.clone()),
            set: state.settings.set.iter().cloned().chain(own).collect(),
            priority: priority.unwrap_or_default(),
            videos: videos.map(|text| video::prefix(text, &state.locations)).transpose()?,
        };
        Plan::named(&defaults.plan)?.set_all(defaults.set.iter().map(String::as_str))?;
        Ok(defaults)
    }
}

/// Takes the bytes of a batch.
pub(crate) struct Taker {
    state: AppState,
    tenant: String,
    batch: String,
    defaults: Defaults,
    splitter: LineSplitter,
    /// Lines of the piece under way.
    ready: Vec<(u64, Line)>,
    jobs: Vec<NewJob>,
    /// The line of each job.
    numbers: Vec<u64>,
    bytes: usize,
    bad: Vec<BadLine>,
    kept: u64,
    intake: Intake,
    /// Where the lines lie in an object. Another process has it, or it was dropped, where `lost` is true.
    manifest: Option<BatchManifest>,
    lost: bool,
}

impl Taker {
    /// For an open batch; `manifest` where its lines lie in one.
    pub(crate) fn new(
        state: AppState,
        tenant: &str,
        batch: &str,
        defaults: Defaults,
        manifest: Option<BatchManifest>,
    ) -> Self {
        Self {
            state,
            tenant: tenant.to_owned(),
            batch: batch.to_owned(),
            defaults,
            splitter: LineSplitter::default(),
            ready: Vec::new(),
            jobs: Vec::new(),
            numbers: Vec::new(),
            bytes: 0,
            bad: Vec::new(),
            kept: 0,
            intake: Intake { batch: batch.to_owned(), ..Intake::default() },
            manifest,
            lost: false,
        }
    }

    /// True once the manifest is no longer this process's: nothing more is taken.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// New jobs so far.
    pub(crate) fn submitted(&self) -> u64 {
        self.intake.submitted
    }

    /// Takes the next bytes.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        // Pieces of a body are small; a manifest's may not be.
        for piece in bytes.chunks(CHUNK_BYTES) {
            let ready = &mut self.ready;
            self.splitter.push(piece, |number, line| ready.push((number, line)));
            for (number, line) in std::mem::take(&mut self.ready) {
                self.line(number, line);
                if self.jobs.len() >= CHUNK || self.bytes >= CHUNK_BYTES || self.bad.len() >= CHUNK {
                    self.flush().await?;
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, number: u64, line: Line) {
        if matches!(&line, Line::Text(text) if text.trim().is_empty()) {
            return;
        }
        self.intake.lines += 1;
        match self.job(line) {
            Ok(job) => {
                self.jobs.push(job);
                self.numbers.push(number);
            }
            Err(error) => self.bad_line(number, error),
        }
    }

    fn job(&mut self, line: Line) -> Result<NewJob, String> {
        let text = match line {
            Line::Text(text) => text,
            Line::TooLong => return Err(format!("line is over {MAX_LINE_BYTES} bytes long")),
            Line::NotUtf8 { valid_up_to } => {
                return Err(format!("line is not valid UTF-8 (byte {} of it)", valid_up_to + 1));
            }
        };
        self.bytes += text.len();
        let job = JobText::parse(&text).map_err(|cause| {
            format!("line is not one JSON object {{\"id\", \"video\", \"question\", …}}: {cause}")
        })?;
        let job = JobText { priority: job.priority.or(Some(self.defaults.priority)), ..job };
        let plan = PlanDefaults { plan: &self.defaults.plan, set: &self.defaults.set };
        new_job(job, self.defaults.videos.as_ref(), &plan, &self.state).map_err(|error| error.to_string())
    }

    fn bad_line(&mut self, line: u64, mut error: String) {
        let end = (0..=ERROR_BYTES.min(error.len())).rev().find(|at| error.is_char_boundary(*at));
        error.truncate(end.unwrap_or(0));
        self.intake.bad_lines += 1;
        if self.intake.errors.len() < NAMED {
            self.intake.errors.push(BadLineView { line, error: error.clone() });
        }
        if self.kept < KEPT {
            self.kept += 1;
            self.bad.push(BadLine { line, error });
        }
    }

    /// Keeps why the batch ends before its last line.
    pub(crate) fn note(&mut self, error: String) {
        self.bad_line(NO_LINE, error);
    }

    /// Submits what has gathered; conflicts join the bad lines, which are kept last.
    pub(crate) async fn flush(&mut self) -> Result<(), ApiError> {
        self.bytes = 0;
        let (jobs, numbers) = (std::mem::take(&mut self.jobs), std::mem::take(&mut self.numbers));
        if !jobs.is_empty() {
            let Some(submissions) = self.submit(&jobs).await? else {
                self.lost = true;
                return Ok(());
            };
            let before = self.intake.submitted;
            for (number, submission) in numbers.into_iter().zip(submissions) {
                match submission {
                    Submission::New(_) => self.intake.submitted += 1,
                    Submission::Existing { .. } => self.intake.existing += 1,
                    Submission::Conflict(conflict) => self.bad_line(number, conflict.to_string()),
                }
            }
            if self.intake.submitted > before {
                self.state.ring(None);
            }
        }
        if !self.bad.is_empty() {
            let bad = std::mem::take(&mut self.bad);
            self.state.store.ledger().put_bad_lines(&self.tenant, &self.batch, &bad).await?;
        }
        Ok(())
    }

    async fn submit(&self, jobs: &[NewJob]) -> Result<Option<Vec<Submission>>, ApiError> {
        let ledger = self.state.store.ledger();
        Ok(match &self.manifest {
            Some(manifest) => ledger.submit_listed(manifest, jobs).await?,
            None => Some(ledger.submit_jobs(&self.tenant, &self.batch, jobs).await?),
        })
    }

    /// Takes the last line and ends the upload; the batch is sealed unless a manifest of it is still to be read. `None`
    /// where the lines' own manifest belongs to another process by now, or was dropped.
    pub(crate) async fn seal(mut self) -> Result<Option<Intake>, ApiError> {
        if let Some((number, line)) = std::mem::take(&mut self.splitter).finish() {
            self.line(number, line);
        }
        self.flush().await?;
        // New jobs may have come with a reading that was interrupted, too.
        let manifest = self.manifest.as_ref();
        let begun = manifest.is_some_and(BatchManifest::was_begun);
        let sealing = Sealing {
            tenant: &self.tenant,
            batch: &self.batch,
            bad_lines: self.intake.bad_lines,
            new_jobs: self.intake.submitted > 0 || begun,
            manifest,
        };
        let ours = self.state.store.ledger().seal_batch(&sealing).await?;
        Ok(ours.then_some(Intake { complete: self.intake.bad_lines == 0, ..self.intake }))
    }
}
