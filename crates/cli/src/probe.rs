//! `spectemp probe`.

use std::process::ExitCode;

use clap::Args;

use crate::context::Context;

/// `spectemp probe`.
#[derive(Args)]
pub(crate) struct ProbeArgs {}

/// Runs the command.
pub(crate) async fn run(_args: ProbeArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this command is under construction")
}
