//! `spectemp index create`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use spectemp_store::{
    DEFAULT_TENANT, IndexSpec, ListingOptions, Locations, RestoreTier, dry_run, location, read_questions,
};
use spectemp_types::{PlanDefaults, VideoUri};

use super::{cost, list};
use crate::{args::PlanArgs, context::Context, database::DatabaseArgs, output, output::Usage};

/// Arguments of `index create`.
#[derive(Args)]
pub(crate) struct CreateArgs {
    /// Names the index [default: made from the prefix].
    name: Option<String>,
    /// The folder whose objects are asked about: s3://bucket/path/, gs://…, az://… or a local folder.
    #[arg(long, value_name = "URI")]
    prefix: String,
    /// Names to take, relative to the prefix; `*` crosses slashes. May be given several times [default: all].
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Names to leave out. May be given several times.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// The questions, one JSON object per line: {"id"?,"question","choices"?,"plan"?,"set"?,"priority"?}.
    #[arg(long, value_name = "FILE.jsonl")]
    questions: PathBuf,
    #[command(flatten)]
    plan: PlanArgs,
    /// When the index is listed again: five fields of cron, UTC, such as "0 3 * * *" [default: only by `index run`].
    #[arg(long, value_name = "CRON")]
    schedule: Option<String>,
    /// Restore objects in Glacier classes first; without it they are skipped.
    #[arg(long)]
    restore: bool,
    /// How many days restored copies stay.
    #[arg(long, value_name = "N", default_value_t = 7)]
    restore_days: u32,
    /// bulk, standard or expedited.
    #[arg(long, value_name = "TIER", default_value_t)]
    restore_tier: RestoreTier,
    /// Read an S3 Inventory (CSV or Parquet) in place of listing the bucket: its manifest.json, or the folder of its reports.
    #[arg(long, value_name = "URI")]
    inventory: Option<String>,
    /// Where the results of its batch go: folder or URI prefix.
    #[arg(long, value_name = "DIR|URI")]
    results: Option<String>,
    /// Only say what it would do: objects, jobs, tokens. Nothing is made.
    #[arg(long)]
    dry_run: bool,
    /// Make the index without listing it now.
    #[arg(long)]
    no_run: bool,
    #[command(flatten)]
    assumed: cost::AssumedArgs,
    /// Whose it is.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TENANT)]
    tenant: String,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs the command.
pub(super) async fn run(args: CreateArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let spec = spec(&args, context)?;
    let locations = Locations::default();
    spec.check(&locations).map_err(|cause| Usage(cause.to_string()))?;
    if args.dry_run {
        let plan = dry_run(None, &locations, &spec, None, &ListingOptions::default()).await?;
        output::print(&cost::report(&spec, &plan, &args.assumed)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = args.name.clone().unwrap_or_else(|| name_of(&spec.prefix));
    let ledger = args.database.open(context).await?;
    let index = ledger.create_index(&args.tenant, &name, &spec).await?;
    eprintln!("index {:?} is made", index.name);
    if args.no_run {
        ledger.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    list(&ledger, &locations, &index).await
}

fn spec(args: &CreateArgs, context: &Context) -> anyhow::Result<IndexSpec> {
    let uri = |flag: &str, text: &str| {
        VideoUri::parse(text)
            .map_err(location::LocationError::from)
            .and_then(|uri| location::normalize(&uri))
            .map_err(|cause| Usage(format!("{flag}: {cause}")))
    };
    let file = args.questions.display();
    let text = std::fs::read_to_string(&args.questions)
        .map_err(|cause| Usage(format!("questions {file} cannot be read: {cause}")))?;
    let plan = context.plan(&args.plan)?.name;
    let set: Vec<String> = context.config.set().iter().chain(&args.plan.set).cloned().collect();
    let questions = read_questions(&text, &PlanDefaults { plan: &plan, set: &set })
        .map_err(|cause| Usage(format!("{file}: {cause}")))?;
    Ok(IndexSpec {
        prefix: uri("--prefix", &args.prefix)?,
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        questions,
        schedule: args.schedule.clone(),
        restore_days: args.restore.then_some(args.restore_days),
        restore_tier: args.restore_tier,
        inventory: args.inventory.as_deref().map(|text| uri("--inventory", text)).transpose()?,
        results: args.results.as_deref().map(|text| uri("--results", text)).transpose()?,
    })
}

/// `s3://bucket/a b/` is called `bucket-a-b`.
fn name_of(prefix: &VideoUri) -> String {
    let text = prefix.redacted();
    let text = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|part| !part.is_empty());
    let name = parts.collect::<Vec<_>>().join("-");
    let name: String = name.chars().take(100).collect();
    if name.is_empty() { "index".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_named_after_its_prefix() {
        for (prefix, name) in
            [("s3://bucket/a b/", "bucket-a-20b"), ("/srv/videos", "srv-videos"), ("/", "index")]
        {
            let uri = location::normalize(&VideoUri::parse(prefix).unwrap()).unwrap();
            assert_eq!(name_of(&uri), name);
        }
    }
}
