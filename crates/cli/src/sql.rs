//! `spectemp sql`.

use std::process::ExitCode;

use clap::Args;

use crate::context::Context;

/// `spectemp sql`.
#[derive(Args)]
pub(crate) struct SqlArgs {}

/// Runs the command.
pub(crate) async fn run(_args: SqlArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this command is under construction")
}
