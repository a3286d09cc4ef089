//! `spectemp bench`: speed and memory, beside other programs in the same run. Each command prints a table and writes
//! `bench/results/*.json` with machine, commit and settings.

mod forms;
mod frames;
mod gpu;
mod loops;
mod model;
pub(crate) mod origin;
mod queue;
mod range_server;
mod speculate;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;

use self::origin::Origin;
use crate::context::Context;

/// Measure.
#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Frames of a long video over a range server with and without latency, beside PyAV, decord and torchcodec.
    Frames(frames::FramesBench),
    /// Vision, prefill, decode and questions on the CPU with random weights, beside HF transformers.
    Model(model::ModelBench),
    /// The whole loop on the CPU with random weights, beside the same loop with HF transformers.
    Loop(loops::LoopBench),
    /// What holding a turn to its form costs per token, beside a step of decoding.
    Forms(forms::FormsBench),
    /// Speculative decoding beside plain decoding, on the demonstration pair and on random weights.
    Speculate(speculate::SpeculateBench),
    /// Prefill and decode on a GPU, with random weights of the published 7B and 3B shapes.
    Gpu(gpu::GpuBench),
    /// The ledger on Postgres: submission, claims and checkpoints with a long queue.
    Queue(queue::QueueBench),
}

/// Runs `spectemp bench`.
pub(crate) async fn run(command: BenchCommand, _context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Frames(options) => frames::run(&options).await?,
        BenchCommand::Queue(options) => queue::run(&options).await?,
        BenchCommand::Loop(options) => tokio::task::spawn_blocking(move || loops::run(&options)).await??,
        BenchCommand::Forms(options) => tokio::task::spawn_blocking(move || forms::run(&options)).await??,
        BenchCommand::Speculate(options) => {
            tokio::task::spawn_blocking(move || speculate::run(&options)).await??;
        }
        BenchCommand::Gpu(options) => tokio::task::spawn_blocking(move || gpu::run(&options)).await??,
        BenchCommand::Model(options) => tokio::task::spawn_blocking(move || model::run(&options)).await??,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes figures to `out`, else to `bench/results/NAME` where that folder is.
fn write(out: Option<&Path>, name: &str, figures: &impl Serialize) -> anyhow::Result<()> {
    let results = Path::new("bench/results");
    let default_out = || results.is_dir().then(|| results.join(name));
    let Some(path) = out.map(Path::to_owned).or_else(default_out) else { return Ok(()) };
    let text = serde_json::to_string_pretty(figures)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    eprintln!("figures in {}", path.display());
    Ok(())
}

/// The same of figures of timed runs, with where they come from and how often each was timed.
fn write_run(out: Option<&Path>, name: &str, repeat: u32, figures: &impl Serialize) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Report<'a, T> {
        #[serde(flatten)]
        origin: Origin,
        repeat: u32,
        #[serde(flatten)]
        figures: &'a T,
    }
    write(out, name, &Report { origin: Origin::here(), repeat, figures })
}

/// Where test files and checkpoints are kept.
fn default_cache() -> anyhow::Result<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "spectemp");
    let folders = folders.context("this platform names no cache folder: give --cache")?;
    Ok(folders.cache_dir().join("bench"))
}
