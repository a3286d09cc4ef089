//! `spectemp model`: fetch checkpoints for later use without a network, and compare them with golden files.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use spectemp_model::{
    check::{self, CheckOptions, CheckReport},
    hub::{self, ModelSource},
};

use crate::{
    args::DeviceArgs,
    context::Context,
    models::{self, Bar},
    output::{self, Usage},
};

/// Fetch and check models.
#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// Fetch a model for later use without a network.
    Pull(PullArgs),
    /// Compare a checkpoint, stage by stage, with golden files made by another implementation.
    Check(CheckArgs),
}

/// Arguments of `spectemp model pull`.
#[derive(Args)]
pub(crate) struct PullArgs {
    /// hf://owner/name[@revision], or a folder in object storage (s3://bucket/prefix …).
    model: String,
}

/// Arguments of `spectemp model check`.
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Folder of the checkpoint (config.json and safetensors), or hf://owner/name[@revision].
    model: String,
    /// Golden file (safetensors with inputs and expected stages); may be given several times.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    golden: Vec<PathBuf>,
    /// Largest relative error, max|a-b| / max|b|, of any stage [default: 1e-4, and more for the language model's stages where its
    /// weights are coarser: bf16 and q8_0 0.15, q4k 0.3].
    #[arg(long, value_name = "X")]
    tolerance: Option<f64>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Runs `spectemp model`.
pub(crate) async fn run(command: ModelCommand, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        ModelCommand::Pull(args) => pull(&args, context).await,
        ModelCommand::Check(args) => check(args, context).await,
    }
}

async fn pull(args: &PullArgs, context: &Context) -> anyhow::Result<ExitCode> {
    models::refuse_files(&args.model)?;
    if models::in_object_storage(&args.model) {
        let dir = models::pull_objects(&args.model, context).await?;
        output::print(&format!("{} is kept in {}", args.model, dir.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let source: ModelSource =
        args.model.parse().map_err(|cause| Usage(format!("model {:?}: {cause}", args.model)))?;
    if let ModelSource::Folder(path) = &source {
        let text = format!("{} is no hf:// or object storage URI: a folder is used as it is", path.display());
        return Err(Usage(text).into());
    }
    let options = models::hub_options(context)?;
    let pulled =
        tokio::task::spawn_blocking(move || hub::pull(&source, &options, &mut Bar::default())).await?;
    pulled.with_context(|| format!("model {}", args.model))?;
    output::print(&format!("{} is kept in {}", args.model, models::cache_dir(context)?.display()))?;
    Ok(ExitCode::SUCCESS)
}

async fn check(args: CheckArgs, context: &Context) -> anyhow::Result<ExitCode> {
    if let Some(tolerance) = args.tolerance.filter(|tolerance| !(tolerance.is_finite() && *tolerance > 0.0)) {
        return Err(Usage(format!("--tolerance {tolerance} must be a number over 0")).into());
    }
    let files = models::locate(&args.model, context).await?;
    let options =
        CheckOptions { tolerance: args.tolerance, load: models::load_options(&args.device, context)? };
    let goldens = args.golden;
    let report = tokio::task::spawn_blocking(move || check::run(&files, &goldens, &options)).await??;
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&as_table(&report))?;
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_table(report: &CheckReport) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "file",
        "stage",
        "relative error",
        "tolerance",
        "",
        "note",
    ]);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1e}"));
    let verdict = |passed: bool| if passed { "ok" } else { "FAILED" };
    for file in &report.files {
        for stage in &file.stages {
            let (error, tolerance) = (number(stage.error), number(stage.tolerance));
            table.add_row([&file.file, &stage.stage, &error, &tolerance, verdict(stage.passed), &stage.note]);
        }
        if let Some(error) = &file.error {
            table.add_row([file.file.as_str(), "-", "-", "-", verdict(false), error.as_str()]);
        }
    }
    let summary = if report.passed { "all stages within" } else { "some stages are over" };
    format!("{}\n{summary} their tolerances, weights held as {}", table.trim_fmt(), report.dtype)
}
