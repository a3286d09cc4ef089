//! The test file: made once by FFmpeg's program, kept in the cache folder.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

pub(super) const FRAMES_PER_SECOND: u32 = 30;
pub(super) const GOP: u32 = 250;

/// testsrc2, 1280×720, H.264 ultrafast, index at the end.
pub(super) struct TestFile {
    pub(super) path: PathBuf,
    pub(super) seconds: u32,
    pub(super) bytes: u64,
    /// Where its index (`moov`) lies.
    pub(super) index: Range<u64>,
}

impl TestFile {
    /// The file of this length in `folder`, made if it is not there.
    pub(super) async fn get(folder: &Path, seconds: u32) -> anyhow::Result<Self> {
        let path = folder.join(format!("testsrc2-1280x720-30fps-{seconds}s-gop{GOP}.mp4"));
        if !path.exists() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("folder {} cannot be made", folder.display()))?;
            eprintln!("making {} (about {} MB)", path.display(), u64::from(seconds) * 933 / 1000);
            encode(&path, seconds).await?;
        }
        let bytes = std::fs::metadata(&path)?.len();
        let index = index_of(&path).with_context(|| format!("{} is broken: delete it", path.display()))?;
        Ok(Self { path, seconds, bytes, index })
    }
}

async fn encode(path: &Path, seconds: u32) -> anyhow::Result<()> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let source = format!("testsrc2=size=1280x720:rate={FRAMES_PER_SECOND}:duration={seconds}");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", &source]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-g", &GOP.to_string(), "-pix_fmt", "yuv420p"]);
    command.args(["-f", "mp4"]).arg(&part).kill_on_drop(true);
    let status =
        command.status().await.context("ffmpeg cannot be run: install it (apt-get install ffmpeg)")?;
    if !status.success() {
        let _ = std::fs::remove_file(&part);
        bail!("ffmpeg could not make {}: {status}", path.display());
    }
    std::fs::rename(&part, path).with_context(|| format!("{} cannot be moved into place", part.display()))
}

/// Where the `moov` box lies.
fn index_of(path: &Path) -> anyhow::Result<Range<u64>> {
    let mut file = std::fs::File::open(path)?;
    let size = file.metadata()?.len();
    let mut at = 0;
    while at + 16 <= size {
        let mut head = [0; 16];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut head)?;
        let (short, long) = (u32::from_be_bytes([head[0], head[1], head[2], head[3]]), &head[8..16]);
        let length = match short {
            0 => size - at,
            1 => long.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            _ => u64::from(short),
        };
        ensure!(length >= 8, "box of {length} bytes at byte {at}");
        if &head[4..8] == b"moov" {
            return Ok(at..at + length);
        }
        at += length;
    }
    bail!("no index in it")
}
