//! What `ask`, `run` and `demo` do before the first job: signals, home, runner.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use spectemp_store::{Home, Locations};
use spectemp_video::{BlockCache, OpenOptions};
use spectemp_worker::{DiskTier, Models, Options, Runner, Stop};

use crate::{context::Context, models::LoadedModels};

/// After the second signal a job has so long to let go.
const GRACE: Duration = Duration::from_secs(2);

/// Stops at SIGINT and SIGTERM, the second one at once.
pub(crate) fn stop_on_signals() -> anyhow::Result<Stop> {
    let tell =
        || eprintln!("stopping after the rounds that are under way; press Ctrl-C again to stop at once");
    let shutdown = spectemp_telemetry::shutdown_on_signals(tell).context("signals cannot be watched")?;
    Ok(Stop { soft: shutdown.soft, hard: shutdown.hard })
}

/// The exit status of an interrupted command.
pub(crate) fn interrupted() -> ExitCode {
    ExitCode::from(130)
}

/// What `work` comes to; none where the command is stopped before. For what leaves nothing behind.
pub(crate) async fn unless_stopped<T>(stop: &Stop, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.soft.cancelled() => None,
        done = work => Some(done),
    }
}

/// What `work` comes to; none where it does not let go soon after the second signal.
pub(crate) async fn unless_stopped_hard<T>(stop: &Stop, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = async { stop.hard.cancelled().await; tokio::time::sleep(GRACE).await } => None,
    }
}

/// Opens the home; waits for another process that holds it, and says which (a warning in the log).
pub(crate) async fn open_home(context: &Context, stop: &Stop) -> anyhow::Result<Option<Arc<Home>>> {
    let dir = context.home_dir()?;
    match unless_stopped(stop, Home::open(&dir, true)).await {
        Some(home) => Ok(Some(Arc::new(home?))),
        None => Ok(None),
    }
}

impl From<LoadedModels> for Models {
    fn from(LoadedModels { target, draft }: LoadedModels) -> Self {
        Self { target, draft }
    }
}

/// A runner over the home.
pub(crate) fn runner(
    home: &Arc<Home>,
    models: Models,
    concurrency: usize,
    allow_scan: bool,
    context: &Context,
) -> anyhow::Result<Runner> {
    let open = OpenOptions { allow_scan, timeout: timeout(context)?, ..OpenOptions::default() };
    let blocks = home.disk_cache("blocks", context.config.number("cache_bytes", None, 0)?)?;
    let remote = Arc::new(BlockCache::with_tier(BlockCache::DEFAULT_BYTES, Arc::new(DiskTier::new(blocks))));
    let options = Options { concurrency, open, remote_blocks: Some(remote), ..Options::default() };
    Ok(Runner::new(home.clone(), Arc::new(Locations::default()), models, options))
}

/// The longest wait for an object.
pub(crate) fn timeout(context: &Context) -> anyhow::Result<Duration> {
    Ok(Duration::from_secs(context.config.number("timeout_s", None, 1)?))
}
