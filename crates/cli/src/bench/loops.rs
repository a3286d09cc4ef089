//! `spectemp bench loop`: the whole loop of `paper16` on random weights, at one question and at several on one video, beside
//! the same loop written plainly with HF transformers (`bench/peers/loop_hf.py`).
//!
//! It blocks for minutes: call it from a blocking task.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use spectemp_model::bench::{LoopOptions, LoopRow, run_loops};

use crate::demo::models;

/// Measure the whole loop on the CPU.
///
/// A target of 494 and a draft of 62 million parameters with random weights, frames of 224 and 112 px, three segments of 64
/// dense frames, 64 tokens a turn. The checkpoints (2.9 GB) are written once and kept.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoopBench {
    /// Questions that are asked at once about one video; a row for each number.
    #[arg(long, default_values_t = [1, 8], value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    questions: Vec<u16>,
    /// Threads of both sides; 0 means one per core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Timed runs of each row, ours and the peer's in turns; one that warms up comes first.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Folder that keeps the checkpoints [default: spectemp/bench in the platform's cache folder].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Python with torch and transformers (bench/peers/requirements.txt); without it only spectemp is measured.
    #[arg(long, env = "SPECTEMP_PEERS_PYTHON", value_name = "FILE")]
    python: Option<PathBuf>,
    /// Write the figures as JSON [default: bench/results/loop.json where that folder is].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the benchmark: the table on stdout, progress on stderr, the JSON file where one is wanted.
pub(crate) fn run(arguments: &LoopBench) -> anyhow::Result<()> {
    if arguments.python.is_none() {
        eprintln!("no --python: HF transformers is not measured");
    }
    let options = LoopOptions {
        questions: arguments.questions.iter().copied().map(usize::from).collect(),
        threads: arguments.threads,
        repeat: arguments.repeat,
        cache: arguments.cache.clone().map_or_else(super::default_cache, Ok)?,
        target: models::target(),
        draft: models::draft(),
        python: arguments.python.clone(),
    };
    let figures = run_loops(&options, &mut |line| eprintln!("{line}"))?;
    crate::output::print(&table(&figures.rows))?;
    super::write_run(arguments.out.as_deref(), "loop.json", arguments.repeat, &figures)
}

pub(super) fn table(rows: &[LoopRow]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "questions",
        "s each",
        "HF s each",
        "HF/ours",
        "reach",
        "prompt tokens",
        "reused",
        "written",
        "equal",
    ]);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        let tokens = row.totals.tokens;
        let peer = |of: &dyn Fn(&spectemp_model::bench::LoopComparison) -> String| {
            row.peer.as_ref().map_or_else(String::new, of)
        };
        table.add_row([
            row.questions.to_string(),
            format!("{:.2}", row.ours.best_ms / 1e3),
            peer(&|peer| format!("{:.2}", peer.times.best_ms / 1e3)),
            peer(&|peer| format!("{:.2}", peer.ratio_best)),
            peer(&|peer| format!("{:.1}", peer.reach)),
            (tokens.text + tokens.visual).to_string(),
            tokens.reused.to_string(),
            tokens.generated.to_string(),
            peer(&|peer| {
                peer.equal_tokens.map_or_else(String::new, |equal| format!("{equal} of {}", peer.tokens))
            }),
        ]);
    }
    table.to_string()
}
