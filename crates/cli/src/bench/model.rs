//! `spectemp bench model`: vision, prefill, decode and questions on the CPU with random weights, one sequence and several
//! together, beside HF transformers with the same weights, inputs and threads.
//!
//! Wiring: [`ModelBench`] are the arguments, [`run`] does it. It blocks for minutes: call it from a blocking task.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use spectemp_model::DTypeChoice;
use spectemp_model::bench::{self, BenchOptions, BenchRow, Size, Work};

use crate::demo::models;

/// Measure the model on the CPU.
///
/// Writes a checkpoint of random weights per size once (0.3 and 2.6 GB) and keeps it.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelBench {
    /// Sizes of the language model: 60m, 500m.
    #[arg(long, default_values_t = [Size::M60, Size::M500], value_delimiter = ',', value_name = "SIZE")]
    sizes: Vec<Size>,
    /// Threads of both sides; 0 means one per core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Timed runs of each work, ours and the peer's in turns, after one that warms up.
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// What our weights are held as: f32, bf16, q8_0 or q4k; the peer's are f32.
    #[arg(long, default_value_t = DTypeChoice::F32, value_name = "DTYPE")]
    dtype: DTypeChoice,
    /// Sequences that decode together and questions that are asked at once; one work for each number.
    #[arg(long, default_values_t = [1, 4, 8, 16], value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: Vec<u16>,
    /// Folder that keeps the checkpoints [default: spectemp/bench in the platform's cache folder].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Python with torch and transformers (bench/peers/requirements.txt); without it only spectemp is measured.
    #[arg(long, env = "SPECTEMP_PEERS_PYTHON", value_name = "FILE")]
    python: Option<PathBuf>,
    /// Python with xllamacpp and gguf: llama.cpp prefills and decodes in the same run, with weights of our type (f32, q8_0).
    #[arg(long, env = "SPECTEMP_LLAMA_PYTHON", value_name = "FILE")]
    llama_python: Option<PathBuf>,
    /// Write the figures as JSON [default: bench/results/model.json where that folder is].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the benchmark: the table on stdout, progress on stderr, the JSON file where one is wanted.
pub(crate) fn run(arguments: &ModelBench) -> anyhow::Result<()> {
    if arguments.python.is_none() {
        eprintln!("no --python: HF transformers is not measured");
    }
    let options = BenchOptions {
        sizes: arguments.sizes.clone(),
        threads: arguments.threads,
        repeat: arguments.repeat,
        dtype: arguments.dtype,
        concurrency: arguments.concurrency.iter().copied().map(usize::from).collect(),
        tokenizer: models::target().require("tokenizer.json")?,
        cache: arguments.cache.clone().map_or_else(super::default_cache, Ok)?,
        python: arguments.python.clone(),
        llama: arguments.llama_python.clone(),
    };
    let figures = bench::run(&options, &mut |line| eprintln!("{line}"))?;
    crate::output::print(&table(&figures.rows))?;
    super::write_run(arguments.out.as_deref(), "model.json", arguments.repeat, &figures)
}

/// The column with the times of llama.cpp.
const LLAMA_COLUMN: usize = 15;

fn table(rows: &[BenchRow]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "size",
        "work",
        "ms",
        "median",
        "cpu ms",
        "per s",
        "HF ms",
        "median",
        "cpu ms",
        "per s",
        "HF/ours",
        "median",
        "cpu",
        "reach",
        "difference",
        "llama.cpp ms",
        "llama.cpp/ours",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        table.add_row(cells(row));
    }
    table.to_string()
}

fn cells(row: &BenchRow) -> Vec<String> {
    let work = match row.work {
        Work::Vision { frames, side } => format!("{frames} frames of {side} px"),
        Work::Prefill { tokens } => format!("prefill of {tokens} tokens"),
        Work::Decode { tokens, context, batch } => format!("a token, {batch} × {tokens} after {context}"),
        Work::Questions { count, context, tokens } => {
            format!("a question of {count}, {context} and {tokens} tokens")
        }
    };
    let times = |times: &bench::Times| {
        let [best, median, cpu] =
            [times.best_ms, times.median_ms, times.best_cpu_ms].map(|ms| format!("{ms:.1}"));
        [best, median, cpu, format!("{:.2}", times.per_second)]
    };
    let mut cells = vec![row.size.to_string(), work];
    cells.extend(times(&row.ours));
    if let Some(peer) = &row.peer {
        cells.extend(times(&peer.times));
        cells.extend([peer.ratio_best, peer.ratio_median, peer.ratio_cpu].map(|ratio| format!("{ratio:.2}")));
        cells.extend([format!("{:.1}", peer.reach), format!("{:.0e}", peer.difference)]);
    }
    if let Some(llama) = &row.llama {
        cells.resize(LLAMA_COLUMN, String::new());
        cells.extend([format!("{:.1}", llama.times.best_ms), format!("{:.2}", llama.ratio_best)]);
    }
    cells
}
