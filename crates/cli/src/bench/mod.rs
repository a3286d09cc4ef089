//! `spectemp bench`: speed and memory, beside other programs in the same run. Each command prints a table and writes
//! `bench/results/*.json` with machine, commit and settings.

mod frames;
mod gpu;
mod loops;
mod model;
pub(crate) mod origin;
mod queue;
mod range_server;
mod speculate;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Subcommand;

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
        BenchCommand::Speculate(options) => {
            tokio::task::spawn_blocking(move || speculate::run(&options)).await??;
        }
        BenchCommand::Gpu(options) => tokio::task::spawn_blocking(move || gpu::run(&options)).await??,
        BenchCommand::Model(options) => tokio::task::spawn_blocking(move || model::run(&options)).await??,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where test files and checkpoints are kept.
fn default_cache() -> anyhow::Result<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "spectemp");
    let folders = folders.context("this platform names no cache folder: give --cache")?;
    Ok(folders.cache_dir().join("bench"))
}
