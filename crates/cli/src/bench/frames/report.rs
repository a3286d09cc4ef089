//! Table and JSON of the figures.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{FramesBench, clip};
use crate::bench::origin::Origin;

/// Which frames were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    /// The nearest keyframes.
    Keyframe,
    /// The frames shown at the times.
    Exact,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyframe => "keyframe",
            Self::Exact => "exact",
        })
    }
}

/// What was known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Call {
    /// Nothing.
    First,
    /// The same video, opened, after a call for other times.
    OtherTimes,
    /// The record of an earlier open.
    Reopened,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) reader: String,
    pub(super) mode: Mode,
    pub(super) call: Call,
    pub(super) latency_ms: u64,
    /// Opening included.
    pub(super) ms: f64,
    /// Processor time of the reader's process; ours holds the server's too.
    pub(super) cpu_ms: Option<f64>,
    pub(super) requests: u64,
    /// Sent by the server.
    pub(super) bytes: u64,
    /// Those of them that belong to the container's index.
    pub(super) index_bytes: u64,
    /// None where the reader does not tell.
    pub(super) decoded: Option<u64>,
    pub(super) returned: u64,
    pub(super) peak_memory_mib: Option<f64>,
    /// Of which the interpreter and the libraries take so much before any work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) import_memory_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// What was run, and on what.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Settings {
    file: String,
    file_bytes: u64,
    file_index_bytes: u64,
    file_seconds: u32,
    file_frames_per_second: u32,
    file_gop: u32,
    frames: u32,
    size: &'static str,
    repeat: u32,
}

impl Settings {
    pub(super) fn new(options: &FramesBench, file: &clip::TestFile) -> Self {
        Self {
            file: "testsrc2, 1280x720, H.264 ultrafast, index at the end".into(),
            file_bytes: file.bytes,
            file_index_bytes: file.index.end - file.index.start,
            file_seconds: file.seconds,
            file_frames_per_second: clip::FRAMES_PER_SECOND,
            file_gop: clip::GOP,
            frames: options.frames,
            size: "448x252",
            repeat: options.repeat,
        }
    }
}

/// All figures.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    origin: Origin,
    settings: Settings,
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(settings: Settings, rows: Vec<Row>) -> Self {
        Self { origin: Origin::here(), settings, rows }
    }

    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "latency", "reader", "mode", "call", "ms", "cpu ms", "requests", "MB", "index kB", "decoded",
            "returned", "peak MiB",
        ]);
        for column in table.column_iter_mut().skip(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in &self.rows {
            table.add_row(cells(row));
        }
        table.to_string()
    }
}

fn cells(row: &Row) -> Vec<String> {
    let call = match row.call {
        Call::First => "first",
        Call::OtherTimes => "other times",
        Call::Reopened => "reopened",
    };
    let ms = match &row.error {
        Some(error) => format!("failed: {}", error.chars().take(60).collect::<String>()),
        None => format!("{:.0}", row.ms),
    };
    vec![
        format!("{} ms", row.latency_ms),
        row.reader.clone(),
        row.mode.to_string(),
        call.into(),
        ms,
        whole(row.cpu_ms),
        row.requests.to_string(),
        format!("{:.2}", row.bytes as f64 / 1e6),
        format!("{:.0}", row.index_bytes as f64 / 1e3),
        row.decoded.map_or_else(|| "?".into(), |decoded| decoded.to_string()),
        row.returned.to_string(),
        whole(row.peak_memory_mib),
    ]
}

fn whole(figure: Option<f64>) -> String {
    figure.map_or_else(|| "?".into(), |figure| format!("{figure:.0}"))
}
