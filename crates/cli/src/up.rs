//! `spectemp up`: API and worker in one process, on this machine's own ledger, folder and models. Nothing else is needed.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use spectemp_queue::Doorbell;
use spectemp_store::Home;
use spectemp_types::JobId;
use spectemp_video::{BlockCache, OpenOptions};
use spectemp_worker::{Chores, ChoresOptions, DiskTier, Models, Worker, WorkerOptions};
use tokio_util::sync::CancellationToken;

use crate::{
    args::ModelArgs,
    context::Context,
    models,
    run::start,
    serve::{self, Api, ApiArgs, Parts},
    worker::days,
};

/// There is one process, so a lease only has to outlive a pause of it.
const LEASE: Duration = Duration::from_secs(60);

/// Arguments of `spectemp up`.
#[derive(Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    models: ModelArgs,
    /// Jobs that run at once [env: SPECTEMP_CONCURRENCY] [default: 4].
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// Read a whole object where nothing else finds a frame.
    #[arg(long)]
    allow_scan: bool,
    /// Days after its end when a job is forgotten, with its rounds, answer and trace [default: never].
    #[arg(long, value_name = "DAYS", env = "SPECTEMP_KEEP_DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    keep_days: Option<u32>,
}

/// Runs the command.
pub(crate) async fn run(mut args: UpArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let metrics = spectemp_telemetry::metrics_handle()?;
    if args.api.allow.is_empty() {
        let here = std::env::current_dir()?;
        eprintln!("videos may lie in {} (--allow names other places)", here.display());
        args.api.allow.push(here.display().to_string());
    }
    let locations = Arc::new(serve::locations(&args.api.allow)?);
    // A missing model is told before anything is opened.
    models::named(&args.models, false, context)?;
    let stop = start::stop_on_signals()?;
    let Some(home) = start::open_home(context, &stop).await? else { return Ok(start::interrupted()) };
    let api = Api::bind(&args.api, home.store(), context).await?;
    let loading = models::load(&args.models, false, context);
    let Some(models) = start::unless_stopped(&stop, loading).await else { return Ok(start::interrupted()) };

    let doorbell = Doorbell::memory();
    let parts =
        Parts { store: home.store().clone(), locations: locations.clone(), doorbell: doorbell.clone() };
    let render = Arc::new(move || metrics.render());
    let worker = worker(&args, &home, &parts, models?.into(), context)?;
    let chores = Chores {
        store: home.store().clone(),
        locations,
        doorbell,
        options: ChoresOptions {
            private_webhooks: args.api.private_webhooks,
            keep: args.keep_days.map(days),
            ..ChoresOptions::new()?
        },
    };
    // Whatever ends first, the others are told to.
    let ending = stop.soft.clone();
    let serving = async { ended(&ending, api.serve(&args.api, render, parts, stop.soft.clone()).await) };
    let working = async {
        let worked = start::unless_stopped_hard(&stop, worker.run(stop.clone())).await;
        ended(&ending, worked.unwrap_or(Ok(())).map_err(Into::into))
    };
    let keeping = async { ended(&ending, chores.run(stop.soft.clone()).await.map_err(Into::into)) };
    let (served, worked, kept) = tokio::join!(serving, working, keeping);
    served.and(worked).and(kept)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells the others that one part has ended.
fn ended(stop: &CancellationToken, result: anyhow::Result<()>) -> anyhow::Result<()> {
    stop.cancel();
    result
}

fn worker(
    args: &UpArgs,
    home: &Arc<Home>,
    parts: &Parts,
    models: Models,
    context: &Context,
) -> anyhow::Result<Worker> {
    let concurrency = context.config.number("concurrency", args.concurrency, 1)? as usize;
    let blocks = home.disk_cache("blocks", context.config.number("cache_bytes", None, 0)?)?;
    let blocks = BlockCache::with_tier(BlockCache::DEFAULT_BYTES, Arc::new(DiskTier::new(blocks)));
    let options = WorkerOptions {
        concurrency,
        open: OpenOptions {
            allow_scan: args.allow_scan,
            timeout: start::timeout(context)?,
            ..OpenOptions::default()
        },
        remote_blocks: Some(Arc::new(blocks)),
        poll: Duration::from_secs(1),
        ..WorkerOptions::new(format!("up {}", JobId::new()), LEASE)
    };
    Ok(Worker {
        store: parts.store.clone(),
        locations: parts.locations.clone(),
        models,
        doorbell: parts.doorbell.clone(),
        options,
        events: None,
    })
}
