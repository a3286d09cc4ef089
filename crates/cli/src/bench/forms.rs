//! `spectemp bench forms`: what holding a turn to its form costs per token, beside a step of decoding in the same run.
//!
//! It blocks for a minute: call it from a blocking task.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use spectemp_model::DTypeChoice;
use spectemp_model::bench::{FormsOptions, FormsReport, run_forms};

use crate::demo::models;

/// Measure what the form of a turn costs.
///
/// Logits and words are made up, as many as the published vocabulary has; the step is that of a random model with 494 million
/// parameters. Its checkpoint (2.6 GB) is written once and kept.
#[derive(Args, Clone, Debug)]
pub(crate) struct FormsBench {
    /// What the weights of the compared step are held as: f32, bf16, q8_0, q4k.
    #[arg(long, default_values_t = [DTypeChoice::F32, DTypeChoice::Q8_0], value_delimiter = ',', value_name = "DTYPE")]
    dtypes: Vec<DTypeChoice>,
    /// Threads of the step; 0 means one per core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Turns of each form; the shortest counts.
    #[arg(long, default_value_t = 9, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Folder that keeps the checkpoints [default: spectemp/bench in the platform's cache folder].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Write the figures as JSON [default: bench/results/forms.json where that folder is].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the benchmark: the table on stdout, progress on stderr, the JSON file where one is wanted.
pub(crate) fn run(arguments: &FormsBench) -> anyhow::Result<()> {
    let options = FormsOptions {
        dtypes: arguments.dtypes.clone(),
        threads: arguments.threads,
        repeat: arguments.repeat,
        cache: arguments.cache.clone().map_or_else(super::default_cache, Ok)?,
        tokenizer: models::target().require("tokenizer.json")?,
    };
    let figures = run_forms(&options, &mut |line| eprintln!("{line}"))?;
    crate::output::print(&table(&figures))?;
    super::write_run(arguments.out.as_deref(), "forms.json", arguments.repeat, &figures)
}

fn table(figures: &FormsReport) -> String {
    let mut header = ["form", "begin ms", "µs free", "µs held"].map(str::to_owned).to_vec();
    let step = |step: &spectemp_model::bench::Step| format!("% of {:.1} ms ({})", step.ms, step.dtype);
    header.extend(figures.steps.iter().map(step));
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in &figures.rows {
        let mut cells = vec![row.form.to_owned(), format!("{:.2}", row.begin_ms)];
        cells.extend([row.free_us, row.held_us].map(|us| format!("{us:.0}")));
        cells.extend(row.percent_of_step.iter().map(|percent| format!("{percent:.2}")));
        table.add_row(cells);
    }
    table.to_string()
}
