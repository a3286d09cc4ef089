//! `spectemp model`.

use std::process::ExitCode;

use clap::Subcommand;

use crate::context::Context;

/// Fetch and check models.
#[derive(Subcommand)]
pub(crate) enum ModelCommand {}

/// Runs the command.
pub(crate) async fn run(command: ModelCommand, _context: &Context) -> anyhow::Result<ExitCode> {
    match command {}
}
