//! `spectemp bench gpu`: prefill, decode and the whole loop of the published shapes with random weights that are drawn on the
//! device, beside HF transformers on the same card.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use spectemp_model::bench::{GpuBenchOptions, GpuLoops, GpuPeer, GpuRow, GpuWork, PublishedSize, run_gpu};
use spectemp_model::{DTypeChoice, DeviceChoice};

use crate::demo::models;

/// Measure the model on a GPU; needs a build with CUDA (make build-cuda).
///
/// The first size is also the target of the whole loop of paper16, the last its draft: 64 tokens a turn, three segments of 64
/// dense frames, at one question and at eight on one video.
#[derive(Args, Clone, Debug)]
pub(crate) struct GpuBench {
    /// Shapes: 3b, 7b.
    #[arg(long, default_values_t = [PublishedSize::B7, PublishedSize::B3], value_delimiter = ',', value_name = "SIZE")]
    sizes: Vec<PublishedSize>,
    /// cuda or cuda:N.
    #[arg(long, default_value_t = DeviceChoice::Cuda(0), value_name = "DEVICE")]
    device: DeviceChoice,
    /// What weights and activations are: bf16 or f32.
    #[arg(long, default_value_t = DTypeChoice::Bf16, value_name = "DTYPE")]
    dtype: DTypeChoice,
    /// Timed runs of each work, after one that warms up.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Python with torch and transformers, to be measured on the same card; without it only spectemp is.
    #[arg(long, env = "SPECTEMP_PEERS_PYTHON", value_name = "FILE")]
    python: Option<PathBuf>,
    /// Write the figures as JSON [default: bench/results/gpu.json where that folder is].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the benchmark: the table on stdout, progress on stderr, the JSON file where one is wanted.
pub(crate) fn run(arguments: &GpuBench) -> anyhow::Result<()> {
    let options = GpuBenchOptions {
        device: arguments.device,
        dtype: arguments.dtype,
        sizes: arguments.sizes.clone(),
        repeat: arguments.repeat,
        loops: Some(GpuLoops { questions: vec![1, 8], target: models::target(), draft: models::draft() }),
        python: arguments.python.clone(),
        ..GpuBenchOptions::default()
    };
    let figures = run_gpu(&options, &mut |line| eprintln!("{line}"))?;
    crate::output::print(&table(&figures.rows))?;
    if let Some(loops) = &figures.loops {
        crate::output::print(&super::loops::table(&loops.rows))?;
    }
    super::write_run(arguments.out.as_deref(), "gpu.json", arguments.repeat, &figures)
}

fn table(rows: &[GpuRow]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(["size", "work", "ms", "tokens/s", "HF ms", "HF/ours"]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        let work = match row.work {
            GpuWork::Prefill { tokens } => format!("prefill of {tokens} tokens"),
            GpuWork::Decode { batch, tokens, context } => {
                format!("a token of {batch} sequences, {tokens} after {context}")
            }
        };
        let peer = |of: &dyn Fn(&GpuPeer) -> String| row.peer.as_ref().map_or_else(String::new, of);
        let figures = [
            format!("{:.2}", row.best_ms),
            format!("{:.0}", row.tokens_per_second),
            peer(&|peer| format!("{:.2}", peer.best_ms)),
            peer(&|peer| format!("{:.2}", peer.ratio_best)),
        ];
        table.add_row([row.size.to_string(), work].into_iter().chain(figures));
    }
    table.to_string()
}
