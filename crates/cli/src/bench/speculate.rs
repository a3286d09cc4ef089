//! `spectemp bench speculate`: what guessing saves, for each proposer and prune rate. The text of every run is compared
//! with plain decoding's; a difference ends the benchmark.
//!
//! It blocks for minutes: call it from a blocking task.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use spectemp_model::bench::{SpeculateOptions, SpeculateRow, run_speculation};

use crate::demo::models;

/// Measure speculative decoding on the CPU.
///
/// On the demonstration pair, and on random weights (62 million parameters) whose draft is the first quarter of its target's
/// layers.
#[derive(Args, Clone, Debug)]
pub(crate) struct SpeculateBench {
    /// Visual tokens of the prompt.
    #[arg(long, default_values_t = [4096, 16384], value_delimiter = ',', value_name = "N")]
    visual_tokens: Vec<usize>,
    /// Shares of them that the draft and the sparse side do without.
    #[arg(long, default_values_t = [0.0, 0.5, 0.8, 0.9], value_delimiter = ',', value_name = "SHARE", value_parser = pruned)]
    prune: Vec<f64>,
    /// Guesses at each level: ones are a chain, more is a tree.
    #[arg(long, default_values_t = [1, 1, 1, 1], value_delimiter = ',', value_name = "N")]
    widths: Vec<usize>,
    /// Tokens to write.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    tokens: u32,
    /// Timed runs of each row; the shortest counts.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Threads; 0 means one per core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Folder that keeps the checkpoints [default: spectemp/bench in the platform's cache folder].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Write the figures as JSON [default: bench/results/speculate.json where that folder is].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn pruned(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("give a share from 0 to 1".to_owned()),
    }
}

/// Runs the benchmark: the table on stdout, progress on stderr, the JSON file where one is wanted.
pub(crate) fn run(arguments: &SpeculateBench) -> anyhow::Result<()> {
    let options = SpeculateOptions {
        visual_tokens: arguments.visual_tokens.clone(),
        prune: arguments.prune.clone(),
        widths: arguments.widths.clone(),
        tokens: arguments.tokens,
        repeat: arguments.repeat,
        threads: arguments.threads,
        cache: arguments.cache.clone().map_or_else(super::default_cache, Ok)?,
        target: models::target(),
        draft: models::draft(),
    };
    let figures = run_speculation(&options, &mut |line| eprintln!("{line}"))?;
    crate::output::print(&table(&figures.rows))?;
    super::write_run(arguments.out.as_deref(), "speculate.json", arguments.repeat, &figures)
}

fn table(rows: &[SpeculateRow]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "pair",
        "visual tokens",
        "proposer",
        "pruned",
        "written",
        "ms",
        "plain ms",
        "plain/ms",
        "agreement",
        "right per call",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let share = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
    for row in rows {
        table.add_row([
            row.pair.to_owned(),
            row.visual_tokens.to_string(),
            row.proposer.clone(),
            share(row.prune),
            row.tokens.to_string(),
            format!("{:.1}", row.ms),
            format!("{:.1}", row.plain_ms),
            format!("{:.2}", row.ratio),
            share(row.agreement),
            share(row.accepted_per_call),
        ]);
    }
    table.to_string()
}
