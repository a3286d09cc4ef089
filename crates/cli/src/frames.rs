//! `spectemp frames`.

use std::process::ExitCode;

use clap::Args;

use crate::context::Context;

/// `spectemp frames`.
#[derive(Args)]
pub(crate) struct FramesArgs {}

/// Runs the command.
pub(crate) async fn run(_args: FramesArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this command is under construction")
}
