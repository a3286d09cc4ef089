//! The `spectemp` binary: a table of roles.
#![expect(
    rustdoc::broken_intra_doc_links,
    reason = "doc comments of arguments are help texts, with brackets of their own"
)]

mod args;
mod ask;
mod bench;
mod client;
mod cluster;
mod config;
mod context;
mod database;
mod demo;
mod doctor;
mod embeddings;
mod frames;
mod gc;
mod index;
mod key;
mod memory;
mod migrate;
mod model;
mod models;
mod open;
mod output;
mod probe;
mod run;
mod serve;
mod show;
mod sql;
mod status;
mod submit;
mod up;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{args::GlobalArgs, context::Context};

/// Answers questions about long videos, with evidence.
///
/// A target model looks at a few frames and answers or names a segment; a draft model picks the frames of it that
/// matter; every round is kept, so an interrupted run goes on where it stopped. Videos are read by byte range from
/// files, S3, GCS, Azure or HTTP, never downloaded whole.
#[derive(Parser)]
#[command(name = "spectemp", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ask one question about one video.
    Ask(ask::AskArgs),
    /// Answer a file of questions; interrupted runs go on where they stopped.
    Run(run::RunArgs),
    /// Show a job's trace in the terminal or as a page.
    Show(show::ShowArgs),
    /// Query answers, evidence, rounds and videos.
    Sql(sql::SqlArgs),
    /// Serve the REST API and work, all in this process: nothing else is needed.
    Up(up::UpArgs),
    /// Serve the REST API over a ledger that workers share.
    Serve(serve::ServeArgs),
    /// Claim jobs of a cluster's ledger and answer them.
    Worker(worker::WorkerArgs),
    /// Submit a file of jobs, or one question, to a server.
    Submit(submit::SubmitArgs),
    /// Show what a server knows of a job or a batch.
    Status(status::StatusArgs),
    /// Cancel a job or a batch of a server.
    Cancel(status::CancelArgs),
    /// Follow a job or a batch of a server until it ends.
    Watch(watch::WatchArgs),
    /// Generate an archive of synthetic videos, answer questions about it and compare strategies.
    Demo(demo::DemoArgs),
    /// Describe a video: container, streams, keyframe index.
    Probe(probe::ProbeArgs),
    /// Write frames of a video as PNG files.
    Frames(frames::FramesArgs),
    /// Fetch and check models.
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Check this machine: libraries, codecs, models, home.
    Doctor(doctor::DoctorArgs),
    /// Show settings and where they come from.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Free what nothing needs: caches over their limit, orphan objects.
    Gc(gc::GcArgs),
    /// Ask standing questions about everything under a prefix of object storage.
    #[command(subcommand)]
    Index(index::IndexCommand),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Make or upgrade the ledger on a Postgres server.
    Migrate(migrate::MigrateArgs),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

fn main() -> ExitCode {
    memory::bound_arenas();
    let cli = Cli::parse();
    output::exit_code(start(cli))
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let context = Context::new(cli.global)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(dispatch(cli.command, &context));
    // A decode or model thread that is still at work must not keep a finished command alive.
    runtime.shutdown_background();
    spectemp_telemetry::flush_traces();
    code
}

async fn dispatch(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ask(args) => ask::run(args, context).await,
        Command::Run(args) => run::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Sql(args) => sql::run(args, context).await,
        Command::Up(args) => Box::pin(up::run(args, context)).await,
        Command::Serve(args) => serve::run(args, context).await,
        Command::Worker(args) => Box::pin(worker::run(args, context)).await,
        Command::Submit(args) => submit::run(args).await,
        Command::Status(args) => status::status(args).await,
        Command::Cancel(args) => status::cancel(args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Demo(args) => demo::run(args, context).await,
        Command::Probe(args) => probe::run(args, context).await,
        Command::Frames(args) => frames::run(args, context).await,
        Command::Model(command) => model::run(command, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Config(command) => config::run(command, context),
        Command::Gc(args) => gc::run(args, context).await,
        Command::Index(command) => index::run(command, context).await,
        Command::Key(command) => key::run(command, context).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Bench(command) => bench::run(command, context).await,
    }
}
