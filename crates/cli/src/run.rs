//! `spectemp run`: a file of questions, answered in any number of runs.
//!
//! A job is (batch, id), and the ledger knows what became of each: the same command again goes on where the last one
//! stopped, whatever stopped it.

pub(crate) mod dry_run;
pub(crate) mod progress;
pub(crate) mod start;
pub(crate) mod words;

use std::{
    collections::HashMap,
    convert::Infallible,
    fs::File,
    io::BufReader,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use spectemp_store::{
    BadLine, DEFAULT_TENANT, ExportJob, ExportReport, Home, Locations, NewJob, StoreError, Submission,
    location,
};
use spectemp_types::{JobId, JobSpec, JobStatus, Strategy, VideoUri};
use spectemp_worker::{Defaults, Ended, FileJob, JobFile, Stop, Work};
use tokio::sync::mpsc::unbounded_channel;

use crate::{
    args::{ModelArgs, PlanArgs},
    context::Context,
    models,
    output::{self, Usage},
};
use progress::{Progress, Tally};
use words::{count, duration};

/// Jobs that are submitted in one transaction.
const CHUNK: usize = 1000;
/// Bad lines that are named on stderr; `errors.jsonl` holds all of them.
const SHOWN: usize = 20;
/// Results are written so often while jobs run, and at the end.
const EXPORT_EVERY: Duration = Duration::from_secs(30);

/// Arguments of `spectemp run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// The jobs, one JSON object per line: {"id","video","question","choices"?,"plan"?,"set"?}.
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
    /// Folder or URI prefix that every video must lie in; relative videos are taken from it [default: anywhere,
    /// relative to the current folder].
    #[arg(long, value_name = "URI-PREFIX")]
    videos: Option<String>,
    /// Folder or URI prefix for answers.jsonl, errors.jsonl and answers.parquet [default: FILE.results].
    #[arg(long, value_name = "DIR|URI")]
    results: Option<String>,
    /// Name under which the ledger knows these jobs [default: the results URI].
    #[arg(long, value_name = "NAME")]
    batch: Option<String>,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    models: ModelArgs,
    /// Jobs that run at once [env: SPECTEMP_CONCURRENCY] [default: 4].
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// Try jobs again that have failed; their committed rounds stay.
    #[arg(long)]
    retry_failed: bool,
    /// Only say what would be done: videos found, seconds, frames and tokens expected.
    #[arg(long)]
    dry_run: bool,
    /// Read a whole object where nothing else finds a frame.
    #[arg(long)]
    allow_scan: bool,
}

/// The jobs of a file as the ledger has them.
#[derive(Default)]
struct Submitted {
    /// Those that wait, by their UUID, as the file has them.
    waiting: HashMap<JobId, JobSpec>,
    /// Those that ended in an earlier run.
    earlier: Tally,
    /// Lines that are no job of this batch.
    bad: Vec<BadLine>,
}

/// What there is to answer.
struct Batch<'a> {
    name: &'a str,
    waiting: HashMap<JobId, JobSpec>,
    earlier: Tally,
    /// Jobs that run at once.
    concurrency: usize,
}

/// Runs the command.
pub(crate) async fn run(args: RunArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let file = read(&args, context)?;
    let concurrency = context.config.number("concurrency", args.concurrency, 1)? as usize;
    let stop = start::stop_on_signals()?;
    if args.dry_run {
        let done = start::unless_stopped(&stop, dry_run::run(&args, file, context)).await;
        return done.unwrap_or_else(|| Ok(start::interrupted()));
    }
    let results = results(&args)?;
    let batch = match &args.batch {
        Some(name) => name.clone(),
        None => location::batch_name(&results).map_err(|cause| Usage(format!("--results: {cause}")))?,
    };
    let Some(home) = start::open_home(context, &stop).await? else { return Ok(start::interrupted()) };
    let submitted = submit(&home, &batch, file, args.retry_failed).await?;
    tell_bad_lines(&submitted.bad);

    let Submitted { waiting, earlier, bad } = submitted;
    let left = waiting.len();
    let locations = Locations::default();
    let export = ExportJob { batch: &batch, results: &results, bad_lines: &bad };
    let exporting = || spectemp_store::export(home.ledger(), &locations, &export);
    let answering = if waiting.is_empty() {
        Ok((Tally::default(), Ended::Done))
    } else {
        let work = Batch { name: &batch, waiting, earlier, concurrency };
        tokio::select! {
            answered = answer(&args, context, &home, work, &stop) => answered,
            never = now_and_then(exporting) => match never {},
        }
    };
    // Jobs whose deadline has passed are claimed by nobody: they have failed.
    home.ledger().expire().await?;
    // Whatever ended the run, the files say what the ledger says.
    let exported = exporting().await;
    let (tally, ended) = answering?;
    exported.with_context(|| format!("results cannot be written to {results}"))?;

    let left = left - tally.answered - tally.failed;
    let total = Tally { answered: earlier.answered + tally.answered, failed: earlier.failed + tally.failed };
    output::print(&summary(total, left, bad.len(), started.elapsed(), &results))?;
    Ok(exit_code(ended, total.failed + bad.len() + left))
}

/// Reads the file of jobs.
fn read(args: &RunArgs, context: &Context) -> anyhow::Result<JobFile> {
    let usage = |cause: String| anyhow::Error::from(Usage(cause));
    let videos = match &args.videos {
        Some(prefix) => {
            let uri = VideoUri::parse(prefix).map_err(|cause| usage(format!("--videos: {cause}")))?;
            Some(location::normalize(&uri).map_err(|cause| usage(format!("--videos: {cause}")))?)
        }
        None => None,
    };
    let plan = context.plan(&args.plan)?.name;
    let set = context.config.set().iter().chain(&args.plan.set).cloned().collect();
    let file = File::open(&args.file)
        .map_err(|cause| usage(format!("job file {} cannot be opened: {cause}", args.file.display())))?;
    JobFile::read(BufReader::new(file), &Defaults { plan, set, videos })
        .map_err(|cause| usage(format!("job file {} cannot be read: {cause}", args.file.display())))
}

/// Where the results go.
fn results(args: &RunArgs) -> anyhow::Result<VideoUri> {
    let beside = || args.file.with_extension("results").to_string_lossy().into_owned();
    let text = args.results.clone().unwrap_or_else(beside);
    let uri = VideoUri::parse(&text).map_err(|cause| Usage(format!("--results: {cause}")))?;
    location::normalize(&uri).map_err(|cause| Usage(format!("--results: {cause}")).into())
}

/// Puts the file's jobs into the ledger; those that are there already are found again.
async fn submit(home: &Home, batch: &str, file: JobFile, retry_failed: bool) -> anyhow::Result<Submitted> {
    if retry_failed {
        home.ledger().retry_failed(DEFAULT_TENANT, batch).await?;
    }
    let mut submitted = Submitted { bad: file.bad, ..Submitted::default() };
    for chunk in file.jobs.chunks(CHUNK) {
        let new = |job: &FileJob| NewJob {
            spec: job.spec.clone(),
            priority: job.priority,
            deadline_ms: job.deadline_ms,
        };
        let jobs: Vec<NewJob> = chunk.iter().map(new).collect();
        let submissions = home.ledger().submit_jobs(DEFAULT_TENANT, batch, &jobs).await?;
        for (job, submission) in chunk.iter().zip(submissions) {
            submitted.add(job, submission);
        }
    }
    submitted.bad.sort_by_key(|bad| bad.line);
    Ok(submitted)
}

impl Submitted {
    fn add(&mut self, job: &FileJob, submission: Submission) {
        match submission {
            Submission::Existing { status: JobStatus::Answered, .. } => self.earlier.answered += 1,
            Submission::Existing { status: JobStatus::Failed, .. } => self.earlier.failed += 1,
            Submission::Existing { status: JobStatus::Cancelled, .. } => {
                let error = format!("job {:?} was cancelled: use another id", job.spec.id);
                self.bad.push(BadLine { line: job.line, error });
            }
            Submission::New(id) | Submission::Existing { job: id, .. } => {
                self.waiting.insert(id, job.spec.clone());
            }
            Submission::Conflict(conflict) => {
                self.bad.push(BadLine { line: job.line, error: conflict.to_string() });
            }
        }
    }
}

fn tell_bad_lines(bad: &[BadLine]) {
    for BadLine { line, error } in bad.iter().take(SHOWN) {
        eprintln!("line {line}: {error}");
    }
    if bad.len() > SHOWN {
        eprintln!("… and {} more bad lines, see errors.jsonl", bad.len() - SHOWN);
    }
}

/// Loads the models and runs the jobs that wait.
async fn answer(
    args: &RunArgs,
    context: &Context,
    home: &Arc<Home>,
    batch: Batch<'_>,
    stop: &Stop,
) -> anyhow::Result<(Tally, Ended)> {
    let needs_draft = batch.waiting.values().any(|spec| spec.plan.settings.strategy == Strategy::SpecTemp);
    let loading = models::load(&args.models, needs_draft, context);
    let Some(models) = start::unless_stopped(stop, loading).await else {
        return Ok((Tally::default(), Ended::Interrupted));
    };
    let runner = start::runner(home, models?.into(), batch.concurrency, args.allow_scan, context)?;

    let before = batch.earlier.answered + batch.earlier.failed;
    let (sender, events) = unbounded_channel();
    let progress = Progress::new(before + batch.waiting.len(), before);
    let follow = tokio::spawn(progress.follow(events));
    let jobs = batch.waiting.into_iter().map(|(job, spec)| (job, spec.video)).collect();
    let work = Work { batch: batch.name.to_owned(), jobs };
    let ended = start::unless_stopped_hard(stop, runner.run(work, stop.clone(), sender)).await;
    let tally = follow.await?;
    Ok((tally, ended.unwrap_or(Ok(Ended::Interrupted))?))
}

/// Writes the results while jobs run, so that they can be read before the end: every half minute, and never so often
/// that it costs more than a twentieth of the time.
async fn now_and_then<F>(export: impl Fn() -> F) -> Infallible
where
    F: Future<Output = Result<ExportReport, StoreError>>,
{
    let mut pause = EXPORT_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let started = Instant::now();
        if let Err(error) = export().await {
            tracing::warn!(error = %error, "results cannot be written for now");
        }
        pause = EXPORT_EVERY.max(started.elapsed() * 20);
    }
}

fn summary(total: Tally, left: usize, bad: usize, took: Duration, results: &VideoUri) -> String {
    let mut parts = vec![format!("{} answered", total.answered), format!("{} failed", total.failed)];
    if left > 0 {
        parts.push(format!("{left} not done"));
    }
    if bad > 0 {
        parts.push(count(bad, "bad line"));
    }
    format!("{} in {}; results in {results}", parts.join(", "), duration(took))
}

fn exit_code(ended: Ended, problems: usize) -> ExitCode {
    match (ended, problems) {
        (Ended::Interrupted, _) => start::interrupted(),
        (Ended::Done, 0) => ExitCode::SUCCESS,
        (Ended::Done, _) => ExitCode::FAILURE,
    }
}
