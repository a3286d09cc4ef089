//! `spectemp frames`: frames of a video as PNG files, and what it cost to get them.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use spectemp_engine::{Frame, FrameMode, FrameRequest, FrameSource as _};
use spectemp_types::Scaler;
use spectemp_video::{Video, encode, even_budget};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    open,
    output::{self, Usage},
};

/// Arguments of `spectemp frames`.
#[derive(Args)]
pub(crate) struct FramesArgs {
    /// The video: a path, or a URI (file, s3, gs, az, http, https).
    uri: String,
    /// Times in seconds from the first displayed frame, comma separated.
    #[arg(long, value_delimiter = ',', value_name = "SECONDS", required_unless_present = "uniform")]
    at: Vec<f64>,
    /// So many times, spread evenly: (k + 0.5) · duration / N.
    #[arg(long, value_name = "N", conflicts_with = "at", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    uniform: Option<u32>,
    /// exact: the frame shown at that time; keyframe: the nearest keyframe within the tolerance, else exact.
    #[arg(long, value_enum, default_value_t = Mode::Exact)]
    mode: Mode,
    /// How far a keyframe may lie from a wanted time, as a fraction of the step between the times (0 to 0.5).
    #[arg(long, value_name = "F", default_value_t = 0.5)]
    tolerance: f64,
    /// Scale frames down to so many pixels at most (aspect kept, even sides).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..))]
    max_pixels: Option<u32>,
    /// Folder for the PNG files; made where it is missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Read the whole object where nothing else finds a frame.
    #[arg(long)]
    allow_scan: bool,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Exact,
    Keyframe,
}

#[derive(Serialize)]
struct Report {
    frames: Vec<Row>,
    io: Io,
    elapsed_ms: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    requested_s: f64,
    pts_s: f64,
    stream_pts_s: f64,
    file: String,
    keyframe: bool,
}

#[derive(Serialize)]
struct Io {
    requests: u64,
    bytes: u64,
    object_bytes: u64,
    decoded_frames: u64,
    full_scan: bool,
}

/// Runs `spectemp frames`.
pub(crate) async fn run(args: FramesArgs, context: &Context) -> anyhow::Result<ExitCode> {
    check(&args)?;
    let started = Instant::now();
    let video = open::open_video(&args.uri, args.allow_scan, context).await?;
    let wanted = wanted(&args, &video)?;
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("folder {} cannot be made", args.out.display()))?;
    let report = fetch(&args, &video, &wanted, started).await?;
    if args.json {
        output::print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    for row in &report.frames {
        let kind = if row.keyframe { "  keyframe" } else { "" };
        output::print(&format!(
            "{:>10.3} s  frame at {:>10.3} s  {}{kind}",
            row.requested_s, row.pts_s, row.file
        ))?;
    }
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    let io = &report.io;
    eprintln!(
        "{} of {} bytes in {} requests, {} frames decoded, {:.0} ms",
        io.bytes, io.object_bytes, io.requests, io.decoded_frames, report.elapsed_ms
    );
    Ok(ExitCode::SUCCESS)
}

fn check(args: &FramesArgs) -> anyhow::Result<()> {
    if let Some(bad) = args.at.iter().find(|time| !time.is_finite() || **time < 0.0) {
        return Err(Usage(format!("--at {bad} is no time: give seconds from 0")).into());
    }
    if !(0.0..=0.5).contains(&args.tolerance) {
        return Err(Usage(format!("--tolerance {} must be from 0 to 0.5", args.tolerance)).into());
    }
    Ok(())
}

/// The wanted times, in the order asked for.
fn wanted(args: &FramesArgs, video: &Video) -> anyhow::Result<Vec<f64>> {
    let Some(count) = args.uniform else { return Ok(args.at.clone()) };
    let step = video.facts().duration_s / f64::from(count);
    Ok((0..count).map(|k| (f64::from(k) + 0.5) * step).collect())
}

async fn fetch(args: &FramesArgs, video: &Video, wanted: &[f64], started: Instant) -> anyhow::Result<Report> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let times_s: Vec<f64> = order.iter().map(|i| wanted[*i]).collect();
    let mode = match args.mode {
        Mode::Exact => FrameMode::Exact,
        Mode::Keyframe => {
            FrameMode::Keyframe { tolerance_s: args.tolerance * step(&times_s, video.facts().duration_s) }
        }
    };
    let request = FrameRequest {
        times_s,
        mode,
        sizes: args.max_pixels.map(even_budget).into_iter().collect(),
        scaler: Scaler::Pillow,
        cancel: CancellationToken::new(),
    };
    let batch = video.frames(request).await?;
    let mut rows: Vec<(usize, Row)> = Vec::with_capacity(wanted.len());
    for (position, frame) in order.into_iter().zip(&batch.frames) {
        rows.push((position, write(args, frame, position, wanted.len())?));
    }
    rows.sort_by_key(|(position, _)| *position);
    let io = video.io();
    Ok(Report {
        frames: rows.into_iter().map(|(_, row)| row).collect(),
        io: Io {
            requests: io.requests,
            bytes: io.bytes,
            object_bytes: video.probe().object_bytes,
            decoded_frames: io.decoded_frames,
            full_scan: io.full_scan,
        },
        elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
        warnings: batch.warnings,
    })
}

/// The step between rising times: the smallest gap; the whole video for a single one.
fn step(times_s: &[f64], duration_s: f64) -> f64 {
    let gaps = times_s.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 0.0);
    gaps.fold(f64::INFINITY, f64::min).min(duration_s)
}

fn write(args: &FramesArgs, frame: &Frame, position: usize, count: usize) -> anyhow::Result<Row> {
    let digits = count.to_string().len().max(4);
    let file = format!("frame-{position:0digits$}-{:.3}s.png", frame.pts_s);
    let path = args.out.join(&file);
    let image = frame.images.first().context("the video room returned a frame without an image")?;
    encode::write_png(&path, image).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(Row {
        requested_s: frame.requested_s,
        pts_s: frame.pts_s,
        stream_pts_s: frame.stream_pts_s,
        file,
        keyframe: frame.keyframe,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_is_the_smallest_gap() {
        assert_eq!(step(&[1.0], 60.0), 60.0);
        assert_eq!(step(&[1.0, 1.0, 4.0, 6.0], 60.0), 2.0);
    }
}
