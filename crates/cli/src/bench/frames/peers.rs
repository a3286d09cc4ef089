//! Rows of other readers: `bench/peers/frames.py`, one process per row, on the same server.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::{
    FramesBench, RangeServer,
    clip::TestFile,
    median,
    report::{Call, Mode, Row},
};

const SCRIPT: &str = include_str!("../../../../../bench/peers/frames.py");

/// A reader that indexes the whole file first may take minutes.
const PATIENCE: Duration = Duration::from_secs(240);

const READERS: [(&str, Mode); 6] = [
    ("pyav", Mode::Keyframe),
    ("decord", Mode::Keyframe),
    ("pyav", Mode::Exact),
    ("decord", Mode::Exact),
    ("torchcodec-approximate", Mode::Exact),
    ("torchcodec-exact", Mode::Exact),
];

/// What the script prints.
#[derive(Deserialize)]
struct Printed {
    ms: f64,
    cpu_ms: f64,
    decoded: Option<u64>,
    returned: u64,
    peak_memory_mib: f64,
    import_memory_mib: f64,
}

/// All their rows at one latency. What takes longer than ten seconds is run once.
pub(super) async fn measure(
    options: &FramesBench,
    file: &TestFile,
    server: &RangeServer,
    (python, latency_ms): (&Path, u64),
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (reader, mode) in READERS {
        let mut runs = Vec::new();
        for _ in 0..options.repeat {
            eprintln!("{reader}, {mode}, {latency_ms} ms");
            server.take();
            let outcome = one(options, file, server.url(), (python, reader, mode)).await;
            let traffic = server.take();
            let mut row = Row {
                reader: reader.into(),
                mode,
                call: Call::First,
                latency_ms,
                ms: 0.0,
                cpu_ms: None,
                requests: traffic.requests,
                bytes: traffic.bytes(),
                index_bytes: traffic.bytes_in(&file.index),
                decoded: None,
                returned: 0,
                peak_memory_mib: None,
                import_memory_mib: None,
                error: None,
            };
            match outcome {
                Ok(printed) => {
                    row.ms = printed.ms;
                    row.cpu_ms = Some(printed.cpu_ms);
                    row.decoded = printed.decoded;
                    row.returned = printed.returned;
                    row.peak_memory_mib = Some(printed.peak_memory_mib);
                    row.import_memory_mib = Some(printed.import_memory_mib);
                }
                Err(cause) => row.error = Some(format!("{cause:#}")),
            }
            let once = row.error.is_some() || row.ms > 10_000.0;
            runs.push(row);
            if once {
                break;
            }
        }
        rows.extend(median(runs));
    }
    Ok(rows)
}

async fn one(
    options: &FramesBench,
    file: &TestFile,
    url: &str,
    (python, reader, mode): (&Path, &str, Mode),
) -> anyhow::Result<Printed> {
    let mut command = Command::new(python);
    command.args(["-", reader, &mode.to_string(), url]);
    command.args([options.frames.to_string(), file.seconds.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("{} cannot be run", python.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(SCRIPT.as_bytes()).await?;
    }
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .with_context(|| format!("not done after {} s", PATIENCE.as_secs()))??;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!("{}", text.lines().last().unwrap_or("failed without a word").trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("unexpected output {line:?}"))
}
