//! `spectemp bench frames`: bytes, requests, time and memory of getting a few frames out of an hour of video behind a
//! range server, with other readers beside it on the same file and server.
//!
//! Wiring: [`FramesBench`] are the arguments, [`run`] does it. It needs `mod frames; mod range_server;` in `bench`.
//!
//! The server lives in this process, so its buffers count as ours in the peak memory; the other readers are measured
//! in processes of their own, one per row, their imports not timed. Every first call starts with empty caches.

mod clip;
mod ours;
mod peers;
mod report;

use std::{path::PathBuf, time::Duration};

use clap::Args;

use self::report::{Report, Row, Settings};
use super::range_server::RangeServer;

/// Measure reading frames over HTTP.
///
/// Encodes a test file once (an hour of 1280x720 takes some minutes and 3.4 GB) and keeps it.
#[derive(Args, Clone, Debug)]
pub(crate) struct FramesBench {
    /// Length of the test file in seconds.
    #[arg(long, default_value_t = 3600, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=36_000))]
    seconds: u32,
    /// Frames per call, uniformly spread.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    frames: u32,
    /// Latencies to add to each request, in milliseconds.
    #[arg(long, default_values_t = [0, 40], value_delimiter = ',', value_name = "MS")]
    latency_ms: Vec<u64>,
    /// Runs of each row; the one of median time is shown.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Folder that keeps the test file [default: spectemp/bench in the platform's cache folder].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Python with av, decord and torchcodec (bench/peers/requirements.txt); without it only spectemp is measured.
    #[arg(long, env = "SPECTEMP_PEERS_PYTHON", value_name = "FILE")]
    python: Option<PathBuf>,
    /// Write the figures as JSON [default: bench/results/frames.json where that folder is].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the benchmark: the table on stdout, progress on stderr, the JSON file where one is wanted.
pub(crate) async fn run(options: &FramesBench) -> anyhow::Result<()> {
    let folder = match &options.cache {
        Some(folder) => folder.clone(),
        None => super::default_cache()?,
    };
    let file = clip::TestFile::get(&folder, options.seconds).await?;
    let server = RangeServer::start(&file.path).await?;
    let mut rows = Vec::new();
    for &latency_ms in &options.latency_ms {
        server.set_latency(Duration::from_millis(latency_ms));
        rows.extend(ours::measure(options, &file, &server, latency_ms).await?);
        match &options.python {
            Some(python) => rows.extend(peers::measure(options, &file, &server, (python, latency_ms)).await?),
            None => eprintln!("no --python: other readers are not measured"),
        }
    }
    let report = Report::new(Settings::new(options, &file), rows);
    crate::output::print(&report.table())?;
    super::write(options.out.as_deref(), "frames.json", &report)
}

/// Of several runs of a row, the one of median time; a failed one only where all failed.
fn median(mut runs: Vec<Row>) -> Option<Row> {
    if runs.iter().any(|run| run.error.is_none()) {
        runs.retain(|run| run.error.is_none());
    }
    runs.sort_by(|a, b| a.ms.total_cmp(&b.ms));
    let middle = runs.len() / 2;
    runs.into_iter().nth(middle)
}
