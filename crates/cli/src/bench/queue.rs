//! `spectemp bench queue`: how fast the ledger on Postgres takes jobs in and gives them out. The jobs are scripted: a
//! claim is followed at once by one round and an answer, so that nothing but the ledger is measured.
//!
//! Wiring: `load.rs` puts jobs in, `work.rs` takes them out, `ring.rs` does both over a doorbell, `report.rs` is the
//! table and the file.

mod load;
mod report;
mod ring;
mod work;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Serialize;
use spectemp_store::{DEFAULT_TENANT, JobFilter, Ledger, LedgerKind, LedgerOptions, MigrateOptions, migrate};
use spectemp_types::JobStatus;

use super::origin::Origin;

/// Measure the ledger on Postgres: submission, claims and checkpoints with a long queue.
///
/// The database must hold no jobs; it is migrated first, and afterwards it is full of waiting jobs: drop it.
#[derive(Args, Clone, Debug)]
pub(crate) struct QueueBench {
    /// postgres://… of an empty database, with fsync on.
    #[arg(long, value_name = "URL", env = "SPECTEMP_BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Jobs in the queue when claims are measured.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    jobs: usize,
    /// Jobs of one call when they are submitted by batch.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Callers at once.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    callers: u32,
    /// Jobs that are submitted one by one.
    #[arg(long, default_value_t = 5000, value_name = "N", value_parser = clap::value_parser!(u32).range(10..))]
    single: u32,
    /// Jobs that are claimed, checkpointed and answered.
    #[arg(long, default_value_t = 5000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..))]
    claims: u32,
    /// redis://… of a server for the doorbell: measures, too, how soon an idle worker claims what is submitted.
    #[arg(long, value_name = "URL", env = "SPECTEMP_BENCH_REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// Jobs that are submitted to an idle worker, with --redis-url.
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(10..))]
    rings: u32,
    /// Write the figures as JSON [default: bench/results/queue.json where that folder is].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write what the server does for the statements as Markdown.
    #[arg(long, value_name = "FILE")]
    explain: Option<PathBuf>,
}

/// All figures.
#[derive(Serialize)]
pub(super) struct Figures {
    #[serde(flatten)]
    origin: Origin,
    /// Settings of the server.
    server: Vec<(String, String)>,
    /// Waiting jobs when claims were measured.
    queued: u64,
    callers: u32,
    /// From the submission of a job, over the doorbell in Redis, to its claim by an idle worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    submission_to_claim: Option<Times>,
    submitted_by_batch: Rate,
    submitted_singly: Rate,
    submitted_singly_by_one: Rate,
    claim: Times,
    checkpoint: Times,
    finish: Times,
    /// Jobs per second through claim, one round and answer, all callers together.
    jobs_per_s: f64,
    counts: Times,
    page: Times,
}

/// Jobs per second.
#[derive(Serialize)]
pub(super) struct Rate {
    jobs: usize,
    per_s: f64,
}

impl Rate {
    fn since(start: Instant, jobs: usize) -> Self {
        Self { jobs, per_s: jobs as f64 / start.elapsed().as_secs_f64() }
    }
}

/// Milliseconds of one kind of call.
#[derive(Serialize)]
pub(super) struct Times {
    calls: usize,
    p50_ms: f64,
    p99_ms: f64,
    most_ms: f64,
}

impl Times {
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = ((seconds.len() as f64 * share).ceil() as usize).clamp(1, seconds.len().max(1)) - 1;
            seconds.get(index).map_or(f64::NAN, |seconds| seconds * 1e3)
        };
        Self { calls: seconds.len(), p50_ms: at(0.5), p99_ms: at(0.99), most_ms: at(1.0) }
    }
}

/// Runs the benchmark: the table on stdout, progress on stderr, the files where they are wanted.
pub(crate) async fn run(arguments: &QueueBench) -> anyhow::Result<()> {
    migrate(&arguments.database_url, &MigrateOptions::default()).await?;
    let options = LedgerOptions { connections: arguments.callers + 4, ..LedgerOptions::default() };
    let ledger = Ledger::connect(&arguments.database_url, &options).await?;
    ensure!(ledger.kind() == LedgerKind::Postgres, "give a postgres:// URL");
    let there = ledger.counts(None).await?.total();
    ensure!(there == 0, "the database holds {there} jobs already: give an empty one");
    let figures = measure(arguments, &ledger).await?;
    crate::output::print(&report::table(&figures))?;
    report::write(arguments, &figures)?;
    if let Some(path) = &arguments.explain {
        let text = report::explained(&ledger.explain().await?);
        std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    ledger.close().await;
    Ok(())
}

async fn measure(arguments: &QueueBench, ledger: &Ledger) -> anyhow::Result<Figures> {
    let callers = arguments.callers;
    let submission_to_claim = match &arguments.redis_url {
        Some(url) => {
            // A worker is idle only where nothing waits, so this comes first.
            eprintln!("submitting {} jobs to an idle worker, over the doorbell", arguments.rings);
            Some(Times::of(ring::to_idle_worker(ledger, url, arguments.rings as usize).await?))
        }
        None => {
            eprintln!(
                "no --redis-url: the time from submission to the claim by an idle worker is not measured"
            );
            None
        }
    };
    eprintln!("submitting {} jobs, {} per call, {callers} callers at once", arguments.jobs, arguments.batch);
    let submitted_by_batch =
        load::by_batch(ledger, arguments.jobs, arguments.batch as usize, callers).await?;
    eprintln!("submitting {} jobs one by one, {callers} callers at once", arguments.single);
    let submitted_singly = load::singly(ledger, "singly", arguments.single as usize, callers).await?;
    eprintln!("submitting {} jobs one by one", arguments.single / 10);
    let submitted_singly_by_one = load::singly(ledger, "by one", arguments.single as usize / 10, 1).await?;

    let queued = ledger.counts(None).await?.queued;
    eprintln!("{queued} jobs wait: claiming {} of them, {callers} callers at once", arguments.claims);
    let worked = work::through(ledger, arguments.claims as usize, callers).await?;
    let (mut counts, mut page) = (Vec::new(), Vec::new());
    let filter = JobFilter {
        tenant: Some(DEFAULT_TENANT),
        batch: Some(load::BATCH),
        status: Some(JobStatus::Queued),
        ..JobFilter::default()
    };
    for _ in 0..100 {
        counts.push(timed(ledger.counts_of(Some(DEFAULT_TENANT), None)).await?);
        page.push(timed(ledger.jobs(&filter, None, 100)).await?);
    }
    Ok(Figures {
        origin: Origin::here(),
        server: ledger.server_settings().await?,
        queued,
        callers,
        submission_to_claim,
        submitted_by_batch,
        submitted_singly,
        submitted_singly_by_one,
        claim: Times::of(worked.claim),
        checkpoint: Times::of(worked.checkpoint),
        finish: Times::of(worked.finish),
        jobs_per_s: worked.jobs_per_s,
        counts: Times::of(counts),
        page: Times::of(page),
    })
}

/// Seconds of one call.
async fn timed<T, E>(call: impl Future<Output = Result<T, E>>) -> Result<f64, E> {
    let start = Instant::now();
    call.await?;
    Ok(start.elapsed().as_secs_f64())
}
