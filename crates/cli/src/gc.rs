//! `spectemp gc`: frees what nothing needs.

use std::process::ExitCode;

use clap::Args;
use spectemp_store::{GcLimits, Home};

use crate::{context::Context, output};

/// Arguments of `spectemp gc`.
#[derive(Args)]
pub(crate) struct GcArgs {
    /// Bytes that the caches may keep [default: the setting cache_bytes].
    #[arg(long, value_name = "BYTES")]
    cache_bytes: Option<u64>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs `spectemp gc`.
pub(crate) async fn run(args: GcArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let home = Home::open(&context.home_dir()?, false).await?;
    let cache_bytes = context.config.number("cache_bytes", args.cache_bytes, 0)?;
    let report = home.gc(&GcLimits { cache_bytes, ..GcLimits::default() }).await;
    home.close().await;
    let report = report?;
    if args.json {
        output::print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = [
        ("cache files over the limit", report.cache_files, report.cache_bytes),
        ("objects of no answer", report.objects, report.object_bytes),
        ("leftovers of dead writers", report.temp_files, report.temp_bytes),
        ("forgotten videos in the ledger", report.videos, report.ledger_bytes),
    ];
    for (what, count, bytes) in rows {
        output::print(&format!("{count:>8}  {what}, {bytes} bytes"))?;
    }
    output::print(&format!("freed {} bytes", report.bytes()))?;
    Ok(ExitCode::SUCCESS)
}
