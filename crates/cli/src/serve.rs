//! `spectemp serve`: the API over a ledger that workers share.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use spectemp_api::{AppState, Settings};
use spectemp_queue::Doorbell;
use spectemp_store::{AllowList, Ledger, LedgerOptions, Locations, SqlLimits, Store};
use spectemp_types::Plan;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{cluster, context::Context, output::Usage};

/// Arguments of `spectemp serve`.
#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    api: ApiArgs,
    /// postgres://… of the ledger; `spectemp migrate` prepares it.
    #[arg(long, value_name = "URL", env = "SPECTEMP_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The same with the login of spectemp_reader, for queries in SQL.
    #[arg(long, value_name = "URL", env = "SPECTEMP_READER_URL", hide_env_values = true)]
    reader_url: Option<String>,
    /// redis://… that wakes workers and counts requests; without it workers look into the ledger now and then.
    #[arg(long, value_name = "URL", env = "SPECTEMP_REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// Folder or URI prefix of the traces, the same for all workers.
    #[arg(long, value_name = "DIR|URI", env = "SPECTEMP_OBJECTS")]
    objects: Option<String>,
}

/// How the API behaves, for `serve` and `up`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ApiArgs {
    /// Address and port to listen on. Without API keys only an address of this machine itself.
    #[arg(long, value_name = "ADDRESS", env = "SPECTEMP_LISTEN", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Bucket, prefix or folder that videos, manifests and results may lie in; may be given several times, or several
    /// with commas between them. Nothing else is ever opened.
    #[arg(long, value_name = "URI-PREFIX", env = "SPECTEMP_ALLOW", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// The plan of jobs that name none [default: paper16].
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// Requests per second that a key may send in the long run.
    #[arg(long, value_name = "N", default_value_t = 1000.0)]
    rate: f64,
    /// Requests that a key may send at once.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    burst: u32,
    /// Largest batch in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30)]
    batch_bytes: u64,
    /// Longest query in SQL, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    sql_timeout: u64,
    /// Most rows of a query in SQL.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    sql_rows: usize,
    /// Webhooks may lead to private addresses.
    #[arg(long)]
    pub(crate) private_webhooks: bool,
}

/// Runs the command.
pub(crate) async fn run(args: ServeArgs, context: &Context) -> anyhow::Result<ExitCode> {
    // What is counted before is lost.
    let metrics = spectemp_telemetry::metrics_handle()?;
    let (url, objects) = cluster::ledger_and_objects(args.database_url.as_deref(), args.objects.as_deref())?;
    let options = LedgerOptions { reader_url: args.reader_url.clone(), ..LedgerOptions::default() };
    let store = Store::new(Ledger::connect(url, &options).await?, objects);
    let means = "workers look into the ledger now and then, and each server limits requests for itself";
    let doorbell = cluster::doorbell(args.redis_url.as_deref(), means)?;
    if args.api.allow.is_empty() {
        eprintln!("no --allow: no video can be opened, so every job will be refused");
    }
    let locations = Arc::new(locations(&args.api.allow)?);
    let tell = || eprintln!("stopping when the requests under way have ended");
    let stop = spectemp_telemetry::shutdown_on_signals(tell).context("signals cannot be watched")?;
    let api = Api::bind(&args.api, &store, context).await?;
    let render = Arc::new(move || metrics.render());
    api.serve(&args.api, render, Parts { store, locations, doorbell }, stop.soft).await?;
    Ok(ExitCode::SUCCESS)
}

/// What the server may open.
pub(crate) fn locations(allow: &[String]) -> anyhow::Result<Locations> {
    let prefixes = allow.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    let list = AllowList::parse(prefixes).map_err(|cause| Usage(format!("--allow: {cause}")))?;
    Ok(Locations::default().allow(list))
}

/// What the API works with.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) locations: Arc<Locations>,
    pub(crate) doorbell: Doorbell,
}

/// A bound socket and whether it belongs to everybody on this machine.
pub(crate) struct Api {
    listener: TcpListener,
    open: bool,
    plan: Plan,
}

impl Api {
    /// Binds the socket; an address that others reach only where keys keep them out.
    pub(crate) async fn bind(args: &ApiArgs, store: &Store, context: &Context) -> anyhow::Result<Self> {
        let addresses = addresses(&args.listen).await?;
        let open = addresses.iter().all(|address| is_loopback(address.ip()));
        if !open && !store.ledger().any_key().await? {
            return Err(Usage(format!(
                "will not listen on {} without API keys: whoever reaches it could read and submit everything; make a \
                 key with `spectemp key create`, or listen on 127.0.0.1",
                args.listen
            ))
            .into());
        }
        let plan = context.plan(&crate::args::PlanArgs { plan: args.plan.clone(), set: Vec::new() })?;
        let listener = TcpListener::bind(&addresses[..]).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
        Ok(Self { listener, open, plan })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.listener.local_addr()?))
    }

    /// Answers requests until `stop`.
    pub(crate) async fn serve(
        self,
        args: &ApiArgs,
        metrics: spectemp_api::RenderMetrics,
        parts: Parts,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let url = self.url()?;
        let settings = Settings {
            open: self.open,
            plan: self.plan.name,
            rate_per_second: args.rate,
            rate_burst: args.burst,
            batch_bytes: args.batch_bytes,
            sql: SqlLimits { timeout: Duration::from_secs(args.sql_timeout), rows: args.sql_rows },
            private_webhooks: args.private_webhooks,
            metrics: Some(metrics),
            ..Settings::default()
        };
        let Parts { store, locations, doorbell } = parts;
        let state = AppState::new(store, locations, doorbell, settings, stop.clone());
        eprintln!("listening on {url} (documentation: {url}/docs/)");
        spectemp_api::serve(self.listener, state, stop).await.context("the server failed")
    }
}

async fn addresses(listen: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host(listen).await;
    let found: Vec<SocketAddr> =
        found.map_err(|cause| Usage(format!("--listen {listen:?} is no ADDRESS:PORT: {cause}")))?.collect();
    anyhow::ensure!(!found.is_empty(), Usage(format!("--listen {listen:?} has no address")));
    Ok(found)
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_told_apart() {
        for (listen, open) in [
            ("127.0.0.1:0", true),
            ("[::1]:0", true),
            ("0.0.0.0:0", false),
            ("[::]:0", false),
            ("192.0.2.1:80", false),
        ] {
            let found = addresses(listen).await.unwrap();
            assert_eq!(found.iter().all(|address| is_loopback(address.ip())), open, "{listen}");
        }
        assert!(addresses("nothing").await.is_err());
    }
}
