//! `spectemp show`.

use std::process::ExitCode;

use clap::Args;

use crate::context::Context;

/// `spectemp show`.
#[derive(Args)]
pub(crate) struct ShowArgs {}

/// Runs the command.
pub(crate) async fn run(_args: ShowArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this command is under construction")
}
