//! `spectemp gc`.

use std::process::ExitCode;

use clap::Args;

use crate::context::Context;

/// `spectemp gc`.
#[derive(Args)]
pub(crate) struct GcArgs {}

/// Runs the command.
pub(crate) async fn run(_args: GcArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this command is under construction")
}
