//! `spectemp bench`.

use std::process::ExitCode;

use clap::Subcommand;

use crate::context::Context;

/// Measure.
#[derive(Subcommand)]
pub(crate) enum BenchCommand {}

/// Runs the command.
pub(crate) async fn run(command: BenchCommand, _context: &Context) -> anyhow::Result<ExitCode> {
    match command {}
}
