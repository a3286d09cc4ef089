//! `spectemp sql`: one read-only select on the documented views.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value};
use spectemp_store::{DEFAULT_TENANT, Home, Ledger, LedgerOptions, SqlLimits, SqlTable};

use crate::{context::Context, database::DatabaseArgs, output};

/// Arguments of `spectemp sql`.
#[derive(Args)]
pub(crate) struct SqlArgs {
    /// One select on the views answers, failures, evidence, rounds, stages, videos and jobs_by_state (docs/sql.md describes their columns).
    query: String,
    /// How the rows are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Longest run.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Most rows.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    limit: usize,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The same with the login of spectemp_reader, as the query itself runs.
    #[arg(long, value_name = "URL", env = "SPECTEMP_READER_URL", hide_env_values = true)]
    reader_url: Option<String>,
    /// Whose rows are seen, where --database-url is given.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TENANT)]
    tenant: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

/// Runs `spectemp sql`.
pub(crate) async fn run(args: SqlArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let limits = SqlLimits { timeout: Duration::from_secs(args.timeout), rows: args.limit };
    let table = match &args.database.database_url {
        Some(url) => {
            let options =
                LedgerOptions { reader_url: args.reader_url, connections: 2, ..LedgerOptions::default() };
            Ledger::connect(url, &options).await?.sql(&args.tenant, &args.query, limits).await?
        }
        None => {
            let home = Home::open_reader(&context.home_dir()?).await?;
            home.ledger().sql(DEFAULT_TENANT, &args.query, limits).await?
        }
    };
    match args.format {
        Format::Table => output::print(&as_table(&table))?,
        Format::Csv => output::print(&as_csv(&table))?,
        Format::Json => output::print_json(&as_objects(&table))?,
    }
    if table.truncated {
        eprintln!("only the first {} rows are shown: raise --limit for more", table.rows.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// A cell's text; control characters, which a hostile answer may hold, never reach the terminal.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}"),
        other => other.to_string(),
    }
}

fn as_table(table: &SqlTable) -> String {
    let mut shown = Table::new();
    shown.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    shown.set_header(&table.columns);
    for row in &table.rows {
        shown.add_row(row.iter().map(plain));
    }
    let rows = if table.rows.len() == 1 { "row" } else { "rows" };
    format!("{shown}\n{} {rows}", table.rows.len())
}

/// RFC 4180, with line feeds.
fn as_csv(table: &SqlTable) -> String {
    let quote = |text: String| {
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text
        }
    };
    let mut lines = vec![table.columns.iter().cloned().map(quote).collect::<Vec<_>>().join(",")];
    for row in &table.rows {
        let cells = row.iter().map(|value| match value {
            Value::String(text) => text.clone(),
            other => plain(other),
        });
        lines.push(cells.map(quote).collect::<Vec<_>>().join(","));
    }
    lines.join("\n")
}

fn as_objects(table: &SqlTable) -> Vec<Map<String, Value>> {
    let object = |row: &Vec<Value>| table.columns.iter().cloned().zip(row.iter().cloned()).collect();
    table.rows.iter().map(object).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> SqlTable {
        SqlTable {
            columns: vec!["job".into(), "answer".into()],
            rows: vec![vec![json!("q1"), json!("a \"b\", c")], vec![json!(2), Value::Null]],
            truncated: false,
        }
    }

    #[test]
    fn csv_quotes_what_must_be_quoted() {
        assert_eq!(as_csv(&table()), "job,answer\nq1,\"a \"\"b\"\", c\"\n2,");
    }

    #[test]
    fn json_is_one_object_per_row() {
        assert_eq!(
            serde_json::to_value(as_objects(&table())).unwrap(),
            json!([{"job": "q1", "answer": "a \"b\", c"}, {"job": 2, "answer": null}])
        );
    }

    #[test]
    fn a_table_shows_no_control_characters() {
        let hostile =
            SqlTable { columns: vec!["x".into()], rows: vec![vec![json!("\u{1b}[2Jhi")]], truncated: false };
        assert!(!as_table(&hostile).contains('\u{1b}'));
    }
}
