//! `spectemp index list` and `show`.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};
use serde_json::json;
use spectemp_store::{Index, IndexFigures};
use spectemp_types::moment_text;

use super::NamedArgs;
use crate::{context::Context, database::DatabaseArgs, output};

/// Arguments of `index list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only this tenant's.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Arguments of `index show`.
#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    index: NamedArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(args: ListArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let ledger = args.database.open(context).await?;
    let indexes = ledger.indexes(args.tenant.as_deref()).await?;
    ledger.close().await;
    if args.json {
        output::print_json(&indexes.iter().map(as_json).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["tenant", "name", "prefix", "state", "schedule", "objects", "jobs", "last listing"]);
    for index in &indexes {
        table.add_row([
            index.tenant.clone(),
            index.name.clone(),
            index.spec.prefix.redacted(),
            state(index).to_owned(),
            index.spec.schedule.clone().unwrap_or_else(|| "–".to_owned()),
            index.figures.objects.to_string(),
            index.figures.jobs.to_string(),
            index.started_ms.map_or_else(|| "–".to_owned(), moment_text),
        ]);
    }
    output::print(&table.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(args: ShowArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let (ledger, index) = args.index.open(context).await?;
    let jobs = ledger.counts_of(Some(&index.tenant), Some(&index.batch)).await?;
    ledger.close().await;
    if args.json {
        output::print_json(&as_json(&index))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![
        format!("index {} of tenant {}: {}", index.name, index.tenant, state(&index)),
        format!("prefix {}", index.spec.prefix),
        format!("{} questions, batch {}", index.spec.questions.len(), index.batch),
    ];
    if index.run > 0 {
        let done = format!("{} of {} ranges done", index.ranges_done, index.ranges);
        lines.push(format!("listing {}: {}; {done}", index.run, figures(&index.figures)));
    }
    lines.extend(index.error.iter().map(|error| format!("stopped by: {error}")));
    lines.push(format!(
        "jobs: {} queued, {} running, {} answered, {} failed, {} cancelled",
        jobs.queued, jobs.running, jobs.answered, jobs.failed, jobs.cancelled
    ));
    output::print(&lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// What a listing came to, in one line.
pub(super) fn figures(figures: &IndexFigures) -> String {
    let mut parts = vec![
        format!("{} objects of {} listed", figures.objects, figures.listed),
        format!("{} new", figures.new),
        format!("{} changed", figures.changed),
    ];
    for (count, what) in
        [(figures.restoring, "restoring"), (figures.skipped, "skipped"), (figures.conflicts, "conflicts")]
    {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    format!("{}: {} jobs enqueued", parts.join(", "), figures.jobs)
}

fn state(index: &Index) -> &'static str {
    match (index.paused, index.listing, &index.error) {
        (true, ..) => "paused",
        (_, true, None) => "listing",
        (_, _, Some(_)) => "stopped by an error",
        _ => "idle",
    }
}

fn as_json(index: &Index) -> serde_json::Value {
    json!({
        "id": index.id.to_string(),
        "tenant": index.tenant,
        "name": index.name,
        "batch": index.batch,
        "state": state(index),
        "spec": index.spec,
        "run": index.run,
        "started_at": index.started_ms.map(moment_text),
        "ended_at": index.ended_ms.map(moment_text),
        "error": index.error,
        "figures": index.figures,
        "ranges": { "done": index.ranges_done, "all": index.ranges },
    })
}
