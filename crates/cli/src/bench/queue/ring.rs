//! From the submission of a job to its claim by an idle worker: the row goes into the ledger, the ring through Redis, and
//! the claim comes back out of the ledger, as between a server and a worker. Both have a doorbell, and with it
//! connections to Redis, of their own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use spectemp_queue::{Doorbell, RedisOptions};
use spectemp_store::{DEFAULT_TENANT, Ledger};
use spectemp_types::JobId;
use tokio::sync::mpsc;

use super::{
    load,
    work::{self, Worked},
};

/// The batch of these jobs.
const BATCH: &str = "rung";
/// Rings that are sent before anything is measured: the first one makes connections.
const WARMING: usize = 5;
/// A worker looks into the ledger so often where nobody rings, as `spectemp worker` does.
const POLL: Duration = Duration::from_secs(5);
/// Before the next job the worker is idle again for so long.
const PAUSE: Duration = Duration::from_millis(20);

/// Seconds of each of `jobs` jobs.
pub(super) async fn to_idle_worker(
    ledger: &Ledger,
    redis_url: &str,
    jobs: usize,
) -> anyhow::Result<Vec<f64>> {
    // Keys of its own: another bell in the same Redis would take the rings.
    let options = RedisOptions { prefix: format!("spectemp-bench-{}", JobId::new()) };
    let ours = Doorbell::redis(redis_url, options.clone())?;
    let theirs = Doorbell::redis(redis_url, options)?;
    let (claims, mut claimed) = mpsc::unbounded_channel();
    let worker = tokio::spawn(wait_and_claim(ledger.clone(), theirs, claims));
    let mut seconds = Vec::with_capacity(jobs);
    for number in 0..WARMING + jobs {
        tokio::time::sleep(PAUSE).await;
        let job = load::job(number)?;
        let start = Instant::now();
        load::check(&ledger.submit_jobs(DEFAULT_TENANT, BATCH, &[job]).await?)?;
        ours.ring(None).await.context("the bell cannot be rung: is --redis-url right?")?;
        let Some(at) = claimed.recv().await else { break };
        if number >= WARMING {
            seconds.push(at.duration_since(start).as_secs_f64());
        }
    }
    if seconds.len() < jobs {
        worker.await.context("the worker broke")??;
        bail!("the worker ended before the jobs did");
    }
    worker.abort();
    Ok(seconds)
}

/// An idle worker: waits for the bell, claims, answers. Tells when each claim was back.
async fn wait_and_claim(
    ledger: Ledger,
    doorbell: Doorbell,
    claims: mpsc::UnboundedSender<Instant>,
) -> anyhow::Result<()> {
    let mut unused = Worked::default();
    loop {
        doorbell.wait(POLL).await;
        while let Some(job) = work::claim(&ledger, "idle worker").await? {
            let at = Instant::now();
            work::answer(&ledger, job, &mut unused).await?;
            if claims.send(at).is_err() {
                return Ok(());
            }
        }
    }
}
