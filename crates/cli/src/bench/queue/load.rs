//! Puts jobs in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::ensure;
use spectemp_store::{DEFAULT_TENANT, Ledger, NewJob, Submission};
use spectemp_types::{JobSpec, Plan, Question, VideoUri};
use tokio::task::JoinSet;

use super::Rate;

/// The batch of the many.
pub(super) const BATCH: &str = "bench";
/// Questions per video.
const PER_VIDEO: usize = 20;
/// Calls between two lines of progress.
const TELL_EVERY: usize = 100;

/// Submits `jobs` jobs, `chunk` per call.
pub(super) async fn by_batch(
    ledger: &Ledger,
    jobs: usize,
    chunk: usize,
    callers: u32,
) -> anyhow::Result<Rate> {
    let start = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (ledger, next) = (ledger.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let first = next.fetch_add(chunk, Ordering::Relaxed);
                if first >= jobs {
                    return anyhow::Ok(());
                }
                let specs: Vec<NewJob> =
                    (first..jobs.min(first + chunk)).map(job).collect::<Result<_, _>>()?;
                check(&ledger.submit_jobs(DEFAULT_TENANT, BATCH, &specs).await?)?;
                if (first / chunk).is_multiple_of(TELL_EVERY) {
                    eprintln!("  {first} jobs, {:.0} s", start.elapsed().as_secs_f64());
                }
            }
        });
    }
    finish(tasks).await?;
    Ok(Rate::since(start, jobs))
}

/// Submits `jobs` jobs, one per call.
pub(super) async fn singly(
    ledger: &Ledger,
    batch: &'static str,
    jobs: usize,
    callers: u32,
) -> anyhow::Result<Rate> {
    let start = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (ledger, next) = (ledger.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= jobs {
                    return anyhow::Ok(());
                }
                check(&ledger.submit_jobs(DEFAULT_TENANT, batch, &[job(number)?]).await?)?;
            }
        });
    }
    finish(tasks).await?;
    Ok(Rate::since(start, jobs))
}

pub(super) fn check(submissions: &[Submission]) -> anyhow::Result<()> {
    let new = submissions.iter().all(|submission| matches!(submission, Submission::New(_)));
    ensure!(new, "a job was there already");
    Ok(())
}

/// All tasks, or the first error.
pub(super) async fn finish(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// Job `number`: a question of usual size about one of many videos.
pub(super) fn job(number: usize) -> anyhow::Result<NewJob> {
    let choices = ["red", "blue", "green", "none of these"].map(str::to_owned).to_vec();
    let spec = JobSpec {
        id: format!("question {number}"),
        video: VideoUri::parse(&format!("s3://archive/videos/{:06}.mp4", number / PER_VIDEO))?,
        question: Question::new(format!("Which colour has the {number}th car that passes?"), choices)?,
        plan: Plan::named("paper16")?,
    };
    Ok(NewJob { priority: (number % 3) as i32, ..NewJob::from(spec) })
}
