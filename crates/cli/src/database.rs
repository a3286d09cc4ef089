//! Which ledger a command works on: the server's, or this machine's.

use clap::Args;
use spectemp_store::{Ledger, LedgerOptions};

use crate::context::Context;

/// Which ledger.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DatabaseArgs {
    /// postgres://… of the ledger [default: the one of this machine's home].
    #[arg(long, value_name = "URL", env = "SPECTEMP_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
}

impl DatabaseArgs {
    /// Opens it for writing. A home's ledger is opened without holding the home: what is written here is no business
    /// of whoever runs its jobs.
    pub(crate) async fn open(&self, context: &Context) -> anyhow::Result<Ledger> {
        let options = LedgerOptions { connections: 8, ..LedgerOptions::default() };
        if let Some(url) = &self.database_url {
            return Ok(Ledger::connect(url, &options).await?);
        }
        let home = context.home_dir()?;
        std::fs::create_dir_all(&home)
            .map_err(|cause| anyhow::anyhow!("cannot make folder {}: {cause}", home.display()))?;
        Ok(Ledger::open(&home.join("ledger.sqlite"), &options).await?)
    }
}
