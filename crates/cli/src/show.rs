//! `spectemp show`: a job's trace in the terminal or as a page.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use spectemp_pages::{Thumbnail, stages_text, trace_html, trace_text};
use spectemp_store::{Home, HomeReader, Job, ObjectKey};
use spectemp_types::{JobId, Trace, Verdict};

use crate::{context::Context, output};

/// Arguments of `spectemp show`.
#[derive(Args)]
pub(crate) struct ShowArgs {
    /// The job: its id in its file, or its UUID.
    job: String,
    /// The batch of the job, where several hold a job of that id.
    #[arg(long)]
    batch: Option<String>,
    /// Write a self-contained page with segments, frames and the time line of the stages instead.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The whole trace as JSON.
    #[arg(long, conflicts_with = "html")]
    json: bool,
}

/// Runs `spectemp show`.
pub(crate) async fn run(args: ShowArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let home = Home::open_reader(&context.home_dir()?).await?;
    let job = home.ledger().find_job(&args.job, args.batch.as_deref()).await?;
    let Some(answer) = home.ledger().answer(job.id).await? else {
        anyhow::ensure!(
            args.html.is_none() && !args.json,
            "job {} is {}: it has no trace yet",
            args.job,
            job.status
        );
        output::print(&unfinished(&home, &job).await?)?;
        return Ok(ExitCode::SUCCESS);
    };
    let trace = home.objects().trace(job.id, answer.epoch).await?;
    let trace =
        trace.with_context(|| format!("the trace object of job {} is gone from the home", args.job))?;
    match &args.html {
        Some(path) => {
            let page = page(&home, job.id, &trace).await?;
            std::fs::write(path, page).with_context(|| format!("{} cannot be written", path.display()))?;
            eprintln!("wrote {}", path.display());
        }
        None if args.json => output::print_json(&trace)?,
        None => output::print(&trace_text(&trace, width()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The page with the thumbnails that the home still holds.
async fn page(home: &HomeReader, job: JobId, trace: &Trace) -> anyhow::Result<String> {
    let mut images: Vec<(f64, Bytes)> = Vec::new();
    for round in &trace.rounds {
        for (place, frame) in round.frames.iter().enumerate() {
            let key = ObjectKey::Thumbnail { job, round: round.no, frame: place as u32 };
            if let Some(png) = home.objects().get(&key).await? {
                images.push((frame.pts_s, png));
            }
        }
    }
    let thumbnails: Vec<Thumbnail<'_>> =
        images.iter().map(|(pts_s, png)| Thumbnail { pts_s: *pts_s, png }).collect();
    Ok(trace_html(trace, &thumbnails)?)
}

/// What is known of a job without an answer.
async fn unfinished(home: &HomeReader, job: &Job) -> anyhow::Result<String> {
    let mut lines = vec![format!("job {} ({}) is {}", job.spec.id, job.id, job.status)];
    if let Some(error) = &job.error {
        lines.push(format!("error: {error}"));
    }
    let rounds = home.ledger().rounds(job.id).await?;
    for round in &rounds {
        let came_to = match &round.verdict {
            Verdict::Answer { text, .. } => format!("answered {text:?}"),
            Verdict::Segment { span } => format!("asked for {:.1} to {:.1} s", span.start_s, span.end_s),
            Verdict::Nothing => "came to nothing".to_owned(),
        };
        lines.push(format!("round {}: {} frames, {came_to}", round.no, round.frames.len()));
    }
    lines.extend(Some(stages_text(&rounds, width())).filter(|text| !text.is_empty()));
    Ok(lines.join("\n"))
}

/// What the user asked for, else the terminal's width, else what a file reads well at.
fn width() -> usize {
    let wanted = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let terminal = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    wanted.or_else(terminal).unwrap_or(100)
}
