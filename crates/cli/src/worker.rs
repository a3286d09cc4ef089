//! `spectemp worker`: claims jobs of a cluster's ledger and answers them.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use clap::Args;
use spectemp_queue::{Doorbell, DoorbellState};
use spectemp_store::{DiskCache, Ledger, LedgerOptions, Store};
use spectemp_telemetry::MetricsHandle;
use spectemp_types::JobId;
use spectemp_video::{BlockCache, OpenOptions};
use spectemp_worker::{Chores, ChoresOptions, DiskTier, Stop, Worker, WorkerOptions};
use tokio::net::TcpListener;

use crate::{args::ModelArgs, cluster, context::Context, models, run::start, serve::locations};

/// Arguments of `spectemp worker`.
///
/// Claims waiting jobs by leases, runs many at once and commits every round. It may be killed at any time: what it ran
/// is taken over by others when its leases end. SIGTERM lets the rounds under way be finished and hands their jobs
/// back. While Postgres, Redis or the object store are away it waits for them.
#[derive(Args)]
pub(crate) struct WorkerArgs {
    /// postgres://… of the ledger; `spectemp migrate` prepares it.
    #[arg(long, value_name = "URL", env = "SPECTEMP_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// redis://… (rediss:// for TLS) that wakes this worker; without it the ledger is looked at every --poll-s.
    #[arg(long, value_name = "URL", env = "SPECTEMP_REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// Folder or URI prefix of the traces, the same for all workers and servers.
    #[arg(long, value_name = "DIR|URI", env = "SPECTEMP_OBJECTS")]
    objects: Option<String>,
    /// Bucket, prefix or folder that videos and results may lie in; may be given several times, or several with
    /// commas between them. Nothing else is ever opened.
    #[arg(long, value_name = "URI-PREFIX", env = "SPECTEMP_ALLOW", value_delimiter = ',')]
    allow: Vec<String>,
    #[command(flatten)]
    models: ModelArgs,
    /// Jobs that run at once [env: SPECTEMP_CONCURRENCY] [default: 4].
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// Most jobs on one video that are claimed together.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    siblings: u64,
    /// Seconds that a job stays with a worker that gives no sign of life; signs come four times as often.
    #[arg(long, alias = "lease", value_name = "SECONDS", env = "SPECTEMP_LEASE_S", default_value_t = 60.0, value_parser = seconds)]
    lease_s: f64,
    /// Seconds that rounds under way may take after SIGTERM.
    #[arg(long, alias = "grace", value_name = "SECONDS", env = "SPECTEMP_GRACE_S", default_value_t = 60.0, value_parser = seconds)]
    grace_s: f64,
    /// Seconds between looks into the ledger where nobody rings.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    poll_s: f64,
    /// Times that a job is put back after passing faults in a row, before it fails.
    #[arg(long, value_name = "N", default_value_t = 8)]
    retries: u32,
    /// Address and port of /healthz, /readyz and /metrics [default: none].
    #[arg(long, alias = "metrics", value_name = "ADDRESS", env = "SPECTEMP_METRICS_ADDR")]
    metrics_addr: Option<SocketAddr>,
    /// Leave sweeps, listings, exports and webhooks to other workers.
    #[arg(long)]
    no_housekeeping: bool,
    /// Webhooks may lead to private addresses.
    #[arg(long)]
    private_webhooks: bool,
    /// Read a whole object where nothing else finds a frame.
    #[arg(long)]
    allow_scan: bool,
    /// Days after its end when a job is forgotten, with its rounds, answer and trace [default: never].
    #[arg(long, value_name = "DAYS", env = "SPECTEMP_KEEP_DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    keep_days: Option<u32>,
}

/// Runs the command.
pub(crate) async fn run(args: WorkerArgs, context: &Context) -> anyhow::Result<ExitCode> {
    // What is counted before is lost.
    let metrics = spectemp_telemetry::metrics_handle()?;
    // Missing settings are told before anything is opened.
    models::named(&args.models, false, context)?;
    let options = options(&args, context)?;
    let locations = Arc::new(locations(&args.allow)?);
    if args.allow.is_empty() {
        eprintln!("no --allow: no video can be opened, so every job will fail");
    }
    let listener = listen(args.metrics_addr).await?;
    let stop = start::stop_on_signals()?;
    let opening = start::unless_stopped(&stop, open(&args)).await;
    let Some((store, doorbell)) = opening.transpose()? else { return Ok(start::interrupted()) };
    let loading = models::load(&args.models, false, context);
    let Some(models) = start::unless_stopped(&stop, loading).await else { return Ok(start::interrupted()) };

    let health = Health { store: store.clone(), doorbell: doorbell.clone(), metrics };
    let answering = tokio::spawn(answer(listener, health));
    let housekeeping = ChoresOptions {
        private_webhooks: args.private_webhooks,
        keep: args.keep_days.map(days),
        ..ChoresOptions::new()?
    };
    let chores = Chores {
        store: store.clone(),
        locations: locations.clone(),
        doorbell: doorbell.clone(),
        options: housekeeping,
    };
    let worker = Worker { store, locations, models: models?.into(), doorbell, options, events: None };
    eprintln!("worker {} waits for jobs", worker.options.name);
    let worked = Box::pin(work(worker, (!args.no_housekeeping).then_some(chores), &stop)).await;
    answering.abort();
    worked?;
    eprintln!("stopped; what was running waits for other workers");
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 3600)
}

/// Works, with the housekeeping beside it, until `stop`.
async fn work(worker: Worker, chores: Option<Chores>, stop: &Stop) -> anyhow::Result<()> {
    let grace = worker.options.grace;
    let keeping = async {
        let Some(chores) = chores else { return Ok(()) };
        tokio::select! {
            kept = chores.run(stop.soft.clone()) => kept,
            // Every chore comes again: one that is under way for too long is dropped.
            () = async { stop.soft.cancelled().await; tokio::time::sleep(grace).await } => Ok(()),
        }
    };
    let working = start::unless_stopped_hard(stop, worker.run(stop.clone()));
    let (worked, kept) = tokio::join!(working, keeping);
    worked.unwrap_or(Ok(())).and(kept).map_err(Into::into)
}

fn options(args: &WorkerArgs, context: &Context) -> anyhow::Result<WorkerOptions> {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "worker".to_owned());
    let concurrency = context.config.number("concurrency", args.concurrency, 1)? as usize;
    // Another name for each start: what an earlier process of this host held is not ours.
    let name = format!("{host}/{}/{}", std::process::id(), JobId::new());
    let open = OpenOptions {
        allow_scan: args.allow_scan,
        timeout: start::timeout(context)?,
        ..OpenOptions::default()
    };
    Ok(WorkerOptions {
        concurrency,
        siblings: args.siblings as usize,
        grace: Duration::from_secs_f64(args.grace_s),
        poll: Duration::from_secs_f64(args.poll_s),
        retries: args.retries,
        open,
        remote_blocks: Some(blocks(context)?),
        ..WorkerOptions::new(name, Duration::from_secs_f64(args.lease_s))
    })
}

/// The cache of byte blocks, in memory and in a folder. Unlike a home the folder may be shared.
fn blocks(context: &Context) -> anyhow::Result<Arc<BlockCache>> {
    let dir = context.home_dir()?.join("cache").join("blocks");
    let bytes = context.config.number("cache_bytes", None, 0)?;
    let cache = std::fs::create_dir_all(&dir).and_then(|()| DiskCache::open(&dir, bytes));
    let cache = cache.with_context(|| format!("cannot open the cache {}", dir.display()))?;
    Ok(Arc::new(BlockCache::with_tier(BlockCache::DEFAULT_BYTES, Arc::new(DiskTier::new(cache)))))
}

/// Opens ledger, objects and doorbell. A database that is still starting is waited for.
async fn open(args: &WorkerArgs) -> anyhow::Result<(Store, Doorbell)> {
    let (url, objects) = cluster::ledger_and_objects(args.database_url.as_deref(), args.objects.as_deref())?;
    let means = format!("the ledger is looked at every {} s", args.poll_s);
    let doorbell = cluster::doorbell(args.redis_url.as_deref(), &means)?;
    let options = LedgerOptions::default();
    loop {
        match Ledger::connect(url, &options).await {
            Ok(ledger) => return Ok((Store::new(ledger, objects), doorbell)),
            Err(error) if error.is_passing() => {
                eprintln!("waiting for the ledger: {error}");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn listen(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    Ok(Some(listener.with_context(|| format!("cannot listen on --metrics-addr {address}"))?))
}

/// What the small server tells of.
#[derive(Clone)]
struct Health {
    store: Store,
    doorbell: Doorbell,
    metrics: MetricsHandle,
}

/// Answers `/healthz`, `/readyz` and `/metrics`.
async fn answer(listener: Option<TcpListener>, health: Health) {
    let Some(listener) = listener else { return };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(error = %error, "metrics are not served any more");
    }
}

/// Not ready without a ledger; degraded, and ready, without a doorbell.
async fn ready(State(health): State<Health>) -> Response {
    let ping = tokio::time::timeout(Duration::from_secs(2), health.store.ledger().ping()).await;
    match ping {
        Ok(Ok(())) => match health.doorbell.state() {
            DoorbellState::Up => "ok\n".into_response(),
            DoorbellState::Down { error, .. } => format!("degraded: no doorbell: {error}\n").into_response(),
        },
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the ledger does not answer\n").into_response(),
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    ([(header::CONTENT_TYPE, MetricsHandle::CONTENT_TYPE)], health.metrics.render()).into_response()
}

/// A time in seconds over zero; `60` and `60s` are the same.
fn seconds(text: &str) -> Result<f64, String> {
    match text.strip_suffix('s').unwrap_or(text).parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("give seconds over 0, at most a day".to_owned()),
    }
}
