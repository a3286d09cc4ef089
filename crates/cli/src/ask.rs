//! `spectemp ask`: one question about one video.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use spectemp_store::{Home, Submission, location};
use spectemp_types::{Answer, JobId, JobSpec, Question, Round, Strategy, Totals, Trace, VideoUri};
use spectemp_worker::{Event, Outcome, Stop, Work};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    args::{ModelArgs, PlanArgs},
    context::Context,
    models,
    output::{self, Usage},
    run::{
        start,
        words::{duration, evidence_line, plain, round_line},
    },
};

/// The batch that all questions of `spectemp ask` belong to.
const BATCH: &str = "ask";

/// Arguments of `spectemp ask`.
#[derive(Args)]
pub(crate) struct AskArgs {
    /// The video: a path or a URI (file, s3, gs, az, http, https).
    video: String,
    /// The question.
    question: String,
    /// An option to choose from; give two or more for a multiple-choice question.
    #[arg(long = "choice", value_name = "TEXT")]
    choices: Vec<String>,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    models: ModelArgs,
    /// Read the whole object where nothing else finds a frame.
    #[arg(long)]
    allow_scan: bool,
    /// One JSON object on stdout, everything else on stderr.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    answer: &'a Answer,
    rounds: &'a [Round],
    totals: &'a Totals,
}

/// Runs the command.
pub(crate) async fn run(args: AskArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let spec = spec(&args, context)?;
    let needs_draft = spec.plan.settings.strategy == Strategy::SpecTemp;
    models::named(&args.models, needs_draft, context)?;
    let stop = start::stop_on_signals()?;
    let Some(home) = start::open_home(context, &stop).await? else { return Ok(start::interrupted()) };
    let loading = models::load(&args.models, needs_draft, context);
    let Some(models) = start::unless_stopped(&stop, loading).await else { return Ok(start::interrupted()) };
    let runner = start::runner(&home, models?.into(), 1, args.allow_scan, context)?;

    let job = submit(&home, &spec).await?;
    let jobs = [(job, spec.video.clone())].into();
    let work = Work { batch: BATCH.to_owned(), jobs };
    let (sender, events) = unbounded_channel();
    let follow = tokio::spawn(follow(events, args.json));
    let running = runner.run(work, stop.clone(), sender);
    let ended = start::unless_stopped_hard(&stop, running).await;
    let outcome = match ended {
        Some(ended) => {
            let outcome = follow.await?;
            // A job whose failure could be written has told why; otherwise the run's error says it.
            if outcome.is_none() {
                ended?;
            }
            outcome
        }
        None => None,
    };
    finish(&args, &home, job, outcome, &stop).await
}

fn spec(args: &AskArgs, context: &Context) -> anyhow::Result<JobSpec> {
    let usage = |cause: String| Usage(cause);
    let video = VideoUri::parse(&args.video).map_err(|cause| usage(cause.to_string()))?;
    let video = location::normalize(&video).map_err(|cause| usage(cause.to_string()))?;
    let question =
        Question::new(&args.question, args.choices.clone()).map_err(|cause| usage(cause.to_string()))?;
    Ok(JobSpec { id: JobId::new().to_string(), video, question, plan: context.plan(&args.plan)? })
}

async fn submit(home: &Home, spec: &JobSpec) -> anyhow::Result<JobId> {
    let submissions = home.ledger().submit(BATCH, std::slice::from_ref(spec)).await?;
    match submissions.into_iter().next() {
        Some(Submission::New(job)) => Ok(job),
        _ => anyhow::bail!("the ledger did not take the question as a new job"),
    }
}

/// Prints the rounds as they happen; how the job ended.
async fn follow(mut events: UnboundedReceiver<Event>, json: bool) -> Option<Outcome> {
    let mut ended = None;
    while let Some(event) = events.recv().await {
        let line = match event {
            Event::Started { .. } => continue,
            Event::Round { round, .. } => round_line(&round),
            Event::Restarted { cause, .. } => format!("starts again: {cause}"),
            Event::Retry { error, after, .. } => format!("tries again in {}: {error}", duration(after)),
            Event::Ended { outcome, .. } => {
                ended = Some(outcome);
                continue;
            }
        };
        // A closed stdout is seen again when the answer is printed.
        if json || output::print(&line).is_err() {
            eprintln!("{line}");
        }
    }
    ended
}

async fn finish(
    args: &AskArgs,
    home: &Home,
    job: JobId,
    outcome: Option<Outcome>,
    stop: &Stop,
) -> anyhow::Result<ExitCode> {
    match outcome {
        Some(Outcome::Answered(trace)) => {
            if args.json {
                let (answer, rounds, totals) = (&trace.answer, &trace.rounds[..], &trace.totals);
                output::print_json(&Report { answer, rounds, totals })?;
            } else {
                output::print(&in_words(&trace))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(Outcome::Failed(error)) => Err(anyhow::anyhow!(error)),
        _ if stop.soft.is_cancelled() => {
            // Nobody would ever ask for it again: every question is a job of its own.
            home.ledger().cancel(job).await.context("the question cannot be cancelled")?;
            Ok(start::interrupted())
        }
        _ => anyhow::bail!("the question was cancelled or taken over by another process"),
    }
}

fn in_words(trace: &Trace) -> String {
    let Trace { answer, totals, .. } = trace;
    let choice = answer.choice.map(|letter| format!("{letter}: ")).unwrap_or_default();
    let mut lines = vec![
        format!("answer      {choice}{}", plain(&answer.text)),
        format!("confidence  {:.2}", answer.confidence),
    ];
    lines.extend(answer.evidence.iter().map(|evidence| format!("evidence    {}", evidence_line(evidence))));
    lines.push(format!(
        "cost        {} rounds, {} frames seen by the target and {} by the draft, {} bytes in {} requests, {} tokens generated",
        totals.rounds,
        totals.target_frames,
        totals.draft_frames,
        totals.io.bytes,
        totals.io.requests,
        totals.tokens.generated
    ));
    lines.push(format!("trace       spectemp show {}", trace.job_id));
    lines.join("\n")
}
