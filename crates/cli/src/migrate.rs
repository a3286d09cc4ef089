//! `spectemp migrate`: makes or upgrades the ledger on a server.

use std::process::ExitCode;

use clap::Args;
use spectemp_store::{MigrateOptions, migrate};

use crate::output;

/// Arguments of `spectemp migrate`.
#[derive(Args)]
pub(crate) struct MigrateArgs {
    /// postgres://… of the ledger, with the login that shall own it (Postgres 15 or later; it must be allowed to make
    /// roles the first time). sqlite:///path works too.
    #[arg(long, value_name = "URL", env = "SPECTEMP_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Password that lets the role spectemp_reader log in: for SQL over the API, for psql and for BI tools.
    #[arg(long, value_name = "TEXT", env = "SPECTEMP_READER_PASSWORD", hide_env_values = true)]
    reader_password: Option<String>,
}

/// Runs `spectemp migrate`.
pub(crate) async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let options = MigrateOptions { reader_password: args.reader_password };
    let migrated = migrate(&args.database_url, &options).await?;
    let text = match migrated.from {
        Some(from) if from == migrated.to => format!("the ledger is at version {from} already"),
        Some(from) => format!("the ledger was at version {from} and is at version {} now", migrated.to),
        None => format!("a new ledger of version {}", migrated.to),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
