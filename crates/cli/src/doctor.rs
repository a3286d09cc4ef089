//! `spectemp doctor`.

use std::process::ExitCode;

use clap::Args;

use crate::context::Context;

/// `spectemp doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {}

/// Runs the command.
pub(crate) async fn run(_args: DoctorArgs, _context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this command is under construction")
}
