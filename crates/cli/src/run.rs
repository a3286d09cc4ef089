//! `spectemp run`.

use std::process::ExitCode;

use clap::Args;

use crate::context::Context;

/// `spectemp run`.
#[derive(Args)]
pub(crate) struct RunArgs {}

/// Runs the command.
pub(crate) async fn run(_args: RunArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this command is under construction")
}
