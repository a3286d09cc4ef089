//! `spectemp demo`.

use std::process::ExitCode;

use clap::Args;

use crate::context::Context;

/// `spectemp demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {}

/// Runs the command.
pub(crate) async fn run(_args: DemoArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this command is under construction")
}
