//! Our own rows: a first call with nothing known, a second for other times, and a first call with the record of an
//! earlier open.

use std::time::Instant;

use anyhow::Context as _;
use spectemp_engine::{FrameMode, FrameRequest, FrameSource as _, PixelBudget};
use spectemp_store::Locations;
use spectemp_types::{Scaler, VideoUri};
use spectemp_video::{OpenOptions, Video, VideoObject, VideoRecord};
use tokio_util::sync::CancellationToken;

use super::{
    FramesBench, RangeServer,
    clip::TestFile,
    median,
    report::{Call, Mode, Row},
};

/// 448 × 252 px for 16:9.
const SIZE: PixelBudget = PixelBudget { min_pixels: 28 * 28, max_pixels: 448 * 252, multiple: 28 };

struct Bench<'a> {
    options: &'a FramesBench,
    file: &'a TestFile,
    server: &'a RangeServer,
    latency_ms: u64,
}

/// All our rows at one latency.
pub(super) async fn measure(
    options: &FramesBench,
    file: &TestFile,
    server: &RangeServer,
    latency_ms: u64,
) -> anyhow::Result<Vec<Row>> {
    let bench = Bench { options, file, server, latency_ms };
    let mut rows = Vec::new();
    for mode in [Mode::Keyframe, Mode::Exact] {
        let mut runs: [Vec<Row>; 3] = Default::default();
        for _ in 0..options.repeat {
            for (runs, row) in runs.iter_mut().zip(bench.once(mode).await?) {
                runs.push(row);
            }
        }
        rows.extend(runs.into_iter().filter_map(median));
    }
    Ok(rows)
}

impl Bench<'_> {
    async fn once(&self, mode: Mode) -> anyhow::Result<[Row; 3]> {
        let (video, first) = self.call(None, mode, Call::First).await?;
        let record = video.record();
        let (video, second) = self.call(Some(Known::Video(video)), mode, Call::OtherTimes).await?;
        drop(video);
        let (_, reopened) = self.call(Some(Known::Record(record)), mode, Call::Reopened).await?;
        Ok([first, second, reopened])
    }

    async fn call(&self, known: Option<Known>, mode: Mode, call: Call) -> anyhow::Result<(Video, Row)> {
        self.server.take();
        let memory = reset_peak_memory();
        let (started, worked) = (Instant::now(), cpu_ms());
        let video = match known {
            Some(Known::Video(video)) => video,
            Some(Known::Record(record)) => open(self.server.url(), Some(record)).await?,
            None => open(self.server.url(), None).await?,
        };
        let batch = video.frames(self.request(mode, call)).await?;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        let traffic = self.server.take();
        let row = Row {
            reader: "spectemp".into(),
            mode,
            call,
            latency_ms: self.latency_ms,
            ms,
            cpu_ms: cpu_ms().zip(worked).map(|(after, before)| after - before),
            requests: traffic.requests,
            bytes: traffic.bytes(),
            index_bytes: traffic.bytes_in(&self.file.index),
            decoded: Some(batch.io.decoded_frames),
            returned: batch.frames.len() as u64,
            peak_memory_mib: memory.and_then(|()| peak_memory_mib()),
            import_memory_mib: None,
            error: None,
        };
        Ok((video, row))
    }

    /// Uniform times; other ones, a quarter of a step earlier, for the second call.
    fn request(&self, mode: Mode, call: Call) -> FrameRequest {
        let offset = if call == Call::OtherTimes { 0.25 } else { 0.5 };
        let step = f64::from(self.file.seconds) / f64::from(self.options.frames);
        FrameRequest {
            times_s: (0..self.options.frames).map(|k| (f64::from(k) + offset) * step).collect(),
            mode: match mode {
                Mode::Keyframe => FrameMode::Keyframe { tolerance_s: 0.5 * step },
                Mode::Exact => FrameMode::Exact,
            },
            sizes: vec![SIZE],
            scaler: Scaler::Pillow,
            cancel: CancellationToken::new(),
        }
    }
}

/// What a call may start with.
#[expect(clippy::large_enum_variant, reason = "made three times in a run")]
enum Known {
    Video(Video),
    Record(VideoRecord),
}

async fn open(url: &str, known: Option<VideoRecord>) -> anyhow::Result<Video> {
    let uri = VideoUri::parse(url)?;
    let location = Locations::default().resolve(&uri).with_context(|| format!("{uri} cannot be located"))?;
    let object = VideoObject { store: location.store, path: location.path, uri };
    Ok(Video::open(object, OpenOptions::default(), known).await?)
}

/// Starts the peak of resident memory afresh; none where the kernel does not offer it.
fn reset_peak_memory() -> Option<()> {
    std::fs::write("/proc/self/clear_refs", "5").ok()
}

fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// Processor time of this process so far, in steps of 10 ms.
fn cpu_ms() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in brackets may hold spaces; behind it, user and system time are the 12th and 13th fields, in 1/100 s.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    Some(fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * 10.0)
}
