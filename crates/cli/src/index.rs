//! `spectemp index`: standing sets of questions over a folder of object storage.

mod cost;
mod create;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use spectemp_store::{
    DEFAULT_TENANT, Index, IndexFigures, Ledger, Listed, ListingOptions, Locations, dry_run, listing,
};

use crate::{context::Context, database::DatabaseArgs, output};

/// What to do with indexes.
#[derive(Subcommand)]
pub(crate) enum IndexCommand {
    /// Make an index and list it: what is new becomes jobs.
    Create(Box<create::CreateArgs>),
    /// List indexes.
    List(show::ListArgs),
    /// Show one index and how its last listing went.
    Show(show::ShowArgs),
    /// List the objects of an index now: what is new or changed becomes jobs; an interrupted listing goes on.
    Run(RunArgs),
    /// Stop an index until it is resumed.
    Pause(NamedArgs),
    /// Let a paused index go on.
    Resume(NamedArgs),
    /// Forget an index and its catalogue; its jobs and answers stay.
    Delete(NamedArgs),
}

/// Which index.
#[derive(Args)]
pub(crate) struct NamedArgs {
    /// The index.
    name: String,
    /// Whose it is.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TENANT)]
    tenant: String,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Arguments of `index run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    index: NamedArgs,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    assumed: cost::AssumedArgs,
}

/// Runs the command.
pub(crate) async fn run(command: IndexCommand, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        IndexCommand::Create(args) => create::run(*args, context).await,
        IndexCommand::List(args) => show::list(args, context).await,
        IndexCommand::Show(args) => show::show(args, context).await,
        IndexCommand::Run(args) => run_now(args, context).await,
        IndexCommand::Pause(args) => pause(args, true, context).await,
        IndexCommand::Resume(args) => pause(args, false, context).await,
        IndexCommand::Delete(args) => delete(args, context).await,
    }
}

impl NamedArgs {
    async fn open(&self, context: &Context) -> anyhow::Result<(Ledger, Index)> {
        let ledger = self.database.open(context).await?;
        let index = ledger.index(&self.tenant, &self.name).await?;
        Ok((ledger, index))
    }
}

async fn run_now(args: RunArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let (ledger, index) = args.index.open(context).await?;
    let locations = Locations::default();
    if args.dry_run {
        let options = ListingOptions::default();
        let plan = dry_run(Some(&ledger), &locations, &index.spec, Some(index.id), &options).await?;
        output::print(&cost::report(&index.spec, &plan, &args.assumed)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    list(&ledger, &locations, &index).await
}

/// Lists an index with progress on the terminal.
async fn list(ledger: &Ledger, locations: &Locations, index: &Index) -> anyhow::Result<ExitCode> {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    let sum = std::sync::Mutex::new(IndexFigures::default());
    let told = |page: &IndexFigures| {
        let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *sum += *page;
        bar.set_message(format!("{} objects listed, {} jobs enqueued", sum.listed, sum.jobs));
        bar.tick();
    };
    let listed = listing(ledger, locations, index.id, &ListingOptions::default(), &told).await;
    bar.finish_and_clear();
    let code = match listed? {
        Listed::Done(figures) => {
            output::print(&format!("{}; batch {}", show::figures(&figures), index.batch))?;
            ExitCode::SUCCESS
        }
        Listed::Held => {
            eprintln!("index {:?} is paused, or another process is listing it", index.name);
            ExitCode::FAILURE
        }
    };
    ledger.close().await;
    Ok(code)
}

async fn pause(args: NamedArgs, paused: bool, context: &Context) -> anyhow::Result<ExitCode> {
    let (ledger, index) = args.open(context).await?;
    ledger.pause_index(index.id, paused).await?;
    ledger.close().await;
    eprintln!("index {:?} {}", index.name, if paused { "is paused" } else { "goes on" });
    Ok(ExitCode::SUCCESS)
}

async fn delete(args: NamedArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let (ledger, index) = args.open(context).await?;
    ledger.delete_index(index.id).await?;
    ledger.close().await;
    eprintln!("index {:?} is deleted; the jobs of batch {} stay", index.name, index.batch);
    Ok(ExitCode::SUCCESS)
}
