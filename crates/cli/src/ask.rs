//! `spectemp ask`.

use std::process::ExitCode;

use clap::Args;

use crate::context::Context;

/// `spectemp ask`.
#[derive(Args)]
pub(crate) struct AskArgs {}

/// Runs the command.
pub(crate) async fn run(_args: AskArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this command is under construction")
}
