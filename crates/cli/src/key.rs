//! `spectemp key`: API keys of tenants.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use serde_json::json;
use spectemp_store::{ApiKey, DEFAULT_TENANT, Role};
use spectemp_types::moment_text;

use crate::{context::Context, database::DatabaseArgs, output};

/// What to do with keys.
#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key and print its secret, which nobody can see again.
    Create(CreateArgs),
    /// List keys, without their secrets.
    List(ListArgs),
    /// Revoke a key at once and for good.
    Revoke(RevokeArgs),
}

/// Arguments of `key create`.
#[derive(Args)]
pub(crate) struct CreateArgs {
    /// Whose jobs the key reaches.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TENANT)]
    tenant: String,
    /// read, submit (and read) or admin (all of the tenant, its indexes too).
    #[arg(long, default_value = "submit")]
    role: Role,
    /// What you call it, to find it again.
    #[arg(long, value_name = "TEXT", default_value = "")]
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Arguments of `key list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only this tenant's.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Arguments of `key revoke`.
#[derive(Args)]
pub(crate) struct RevokeArgs {
    /// The key's id, as `key list` shows it.
    id: String,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs the command.
pub(crate) async fn run(command: KeyCommand, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        KeyCommand::Create(args) => create(args, context).await,
        KeyCommand::List(args) => list(args, context).await,
        KeyCommand::Revoke(args) => revoke(args, context).await,
    }
}

async fn create(args: CreateArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let ledger = args.database.open(context).await?;
    let key = ledger.create_key(&args.tenant, args.role, &args.name).await?;
    ledger.close().await;
    if args.json {
        let shown =
            json!({ "id": key.id, "secret": key.secret, "tenant": args.tenant, "role": args.role.as_str() });
        output::print_json(&shown)?;
    } else {
        // The secret alone goes to stdout, so that a script can take it.
        eprintln!("{} of tenant {} may {}; its secret is shown this once:", key.id, args.tenant, args.role);
        output::print(&key.secret)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let ledger = args.database.open(context).await?;
    let keys = ledger.keys(args.tenant.as_deref()).await?;
    ledger.close().await;
    if args.json {
        output::print_json(&keys.iter().map(as_json).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["id", "tenant", "role", "name", "created", "last used", "revoked"]);
    let time = |time: Option<i64>| time.map_or_else(|| "–".to_owned(), moment_text);
    for key in &keys {
        table.add_row([
            key.id.clone(),
            key.tenant.clone(),
            key.role.to_string(),
            key.name.clone(),
            moment_text(key.created_ms),
            time(key.used_ms),
            time(key.revoked_ms),
        ]);
    }
    output::print(&table.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

fn as_json(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id,
        "tenant": key.tenant,
        "role": key.role.as_str(),
        "name": key.name,
        "created_at": moment_text(key.created_ms),
        "last_used_at": key.used_ms.map(moment_text),
        "revoked_at": key.revoked_ms.map(moment_text),
    })
}

async fn revoke(args: RevokeArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let ledger = args.database.open(context).await?;
    let was_good = ledger.revoke_key(&args.id).await?;
    ledger.close().await;
    eprintln!("{} {}", args.id, if was_good { "is revoked" } else { "was revoked already" });
    Ok(ExitCode::SUCCESS)
}
