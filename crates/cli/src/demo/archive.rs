//! The archive on disk: every planned video as an H.264 file in the home's cache, made once and then reused.

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use spectemp_demo::{Archive, DemoVideo, SIDE};
use spectemp_video::encode::{EncodeOptions, Encoder, FrameRate, Preset};
use tokio_util::sync::CancellationToken;

use crate::run::words::{count, duration};

/// The videos of an archive and where they lie.
pub(super) struct OnDisk {
    /// The plans and their files, in the order of the plan.
    pub(super) videos: Vec<(DemoVideo, PathBuf)>,
    /// The folder that they lie in.
    pub(super) dir: PathBuf,
    /// Files that were made now; the others were there.
    pub(super) made: usize,
    /// Size of all files.
    pub(super) bytes: u64,
}

/// Makes the files of `videos` that are missing in `dir`; none where `stop` came first.
pub(super) async fn make(
    videos: Vec<DemoVideo>,
    dir: &Path,
    stop: CancellationToken,
) -> anyhow::Result<Option<OnDisk>> {
    // A folder per version of the generator: files of another one are never taken for these.
    let dir = dir.join(format!("v{}", Archive::VERSION));
    tokio::task::spawn_blocking(move || make_all(videos, &dir, &stop)).await?
}

fn make_all(videos: Vec<DemoVideo>, dir: &Path, stop: &CancellationToken) -> anyhow::Result<Option<OnDisk>> {
    std::fs::create_dir_all(dir).with_context(|| format!("folder {} cannot be made", dir.display()))?;
    let videos: Vec<(DemoVideo, PathBuf)> = videos
        .into_iter()
        .map(|video| (file_name(&video), video))
        .map(|(name, video)| (video, dir.join(name)))
        .collect();
    let mut missing: Vec<&(DemoVideo, PathBuf)> = videos.iter().filter(|(_, path)| !path.is_file()).collect();
    // The longest first: no thread is left with one at the end.
    missing.sort_by_key(|(video, _)| std::cmp::Reverse(video.frame_count()));
    let made = missing.len();
    encode_all(&missing, stop)?;
    if stop.is_cancelled() {
        return Ok(None);
    }
    let size = |(_, path): &(DemoVideo, PathBuf)| std::fs::metadata(path).map(|file| file.len());
    let bytes =
        videos.iter().map(size).sum::<Result<u64, _>>().context("a video of the archive cannot be read")?;
    Ok(Some(OnDisk { videos, dir: dir.to_owned(), made, bytes }))
}

fn file_name(video: &DemoVideo) -> String {
    format!("{:016x}-{}s-{}fps.mp4", video.seed, video.seconds, video.fps)
}

fn encode_all(missing: &[&(DemoVideo, PathBuf)], stop: &CancellationToken) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let bar = progress(missing);
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some((video, path)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(cause) = encode(video, path, &bar, stop) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
                next.store(missing.len(), Ordering::Relaxed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(missing.len());
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    bar.finish_and_clear();
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

fn progress(missing: &[&(DemoVideo, PathBuf)]) -> ProgressBar {
    let bar = ProgressBar::new(missing.iter().map(|(video, _)| video.frame_count()).sum());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} frames of the archive, {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

/// Encodes one video. Stopped in the middle it leaves nothing: the encoder takes its partial file away.
fn encode(video: &DemoVideo, path: &Path, bar: &ProgressBar, stop: &CancellationToken) -> anyhow::Result<()> {
    let options = EncodeOptions {
        fps: FrameRate::whole(video.fps),
        preset: Preset::Veryfast,
        gop: Some(video.gop),
        // One thread each: the same bytes on every machine, and a video per core at a time.
        threads: 1,
        ..EncodeOptions::default()
    };
    let mut encoder = Encoder::create(path, SIDE, SIDE, &options)?;
    let painter = video.painter();
    for number in 0..video.frame_count() {
        if stop.is_cancelled() {
            return Ok(());
        }
        encoder.push(&painter.frame(number))?;
        bar.inc(1);
    }
    encoder.finish()?;
    Ok(())
}

impl OnDisk {
    /// What it holds: videos, hours, bytes.
    pub(super) fn in_words(&self) -> String {
        let seconds: u64 = self.videos.iter().map(|(video, _)| u64::from(video.seconds)).sum();
        let length = duration(Duration::from_secs(seconds));
        format!(
            "{} of {length} in all, {:.1} MB of H.264",
            count(self.videos.len(), "video"),
            self.bytes as f64 / 1e6
        )
    }

    /// Questions about all videos.
    pub(super) fn questions(&self) -> usize {
        self.videos.iter().map(|(video, _)| video.questions.len()).sum()
    }
}
