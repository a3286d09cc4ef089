//! The clips: what is encoded, how, and where it is kept.
//!
//! Every picture is testsrc2 with its number in binary along the lower edge, so that no two are alike.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// How one clip is made.
#[derive(Clone, Copy, Hash)]
pub(crate) struct Clip {
    pub(crate) name: &'static str,
    /// The container, by file name extension.
    pub(crate) extension: &'static str,
    pub(crate) source: Source,
    /// Arguments of ffmpeg between input and output, split at white space.
    pub(crate) arguments: &'static str,
}

/// Where its pictures come from.
#[derive(Clone, Copy, Hash)]
pub(crate) enum Source {
    /// Made: `rate` pictures a second for `seconds`.
    Made { width: u32, height: u32, rate: &'static str, seconds: u32, filters: &'static str },
    /// Another clip, with arguments before its `-i`.
    Clip(&'static Clip, &'static str),
}

/// 160 × 120 px, 25 pictures a second, 4 s.
pub(crate) const SMALL: Source = small("");

/// [`SMALL`] with further filters.
pub(crate) const fn small(filters: &'static str) -> Source {
    Source::Made { width: 160, height: 120, rate: "25", seconds: 4, filters }
}

/// 256 × 192 px of noise, 30 s: some MB, so that bytes read mean something.
pub(crate) const NOISY: Source =
    Source::Made { width: 256, height: 192, rate: "25", seconds: 30, filters: "noise=alls=24:allf=t" };

impl Clip {
    /// The file, made at the first use.
    pub(crate) fn path(&self) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        (self, ffmpeg_version()).hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips");
        let path = folder.join(format!("{}-{:016x}.{}", self.name, hasher.finish(), self.extension));
        if !path.exists() {
            std::fs::create_dir_all(&folder).unwrap();
            // Tests run in processes side by side: whoever is last wins, with an equal file.
            let part = folder.join(format!("{}-{}.{}", self.name, std::process::id(), self.extension));
            self.encode(&part);
            std::fs::rename(part, &path).unwrap();
        }
        path
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    fn encode(&self, to: &Path) {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostdin", "-y"]);
        match self.source {
            Source::Made { width, height, rate, seconds, filters } => {
                let source = format!("testsrc2=size={width}x{height}:rate={rate}:duration={seconds}");
                let filters = [&number_filter(width, height), filters].map(str::to_owned);
                let filters: Vec<String> = filters.into_iter().filter(|filter| !filter.is_empty()).collect();
                command.args(["-f", "lavfi", "-i", &source]);
                if self.arguments.contains("-c:a") {
                    command.args(["-f", "lavfi", "-i", &format!("sine=frequency=440:duration={seconds}")]);
                }
                command.args(["-vf", &filters.join(",")]);
            }
            Source::Clip(clip, before) => {
                command.args(before.split_whitespace()).arg("-i").arg(clip.path());
            }
        }
        command.args(self.arguments.split_whitespace()).arg(to);
        run(command);
    }
}

/// Nine boxes along the lower edge, bit n of the picture's number each.
fn number_filter(width: u32, height: u32) -> String {
    let (side, top) = (width / 10, height - height / 8);
    let boxes = (0..9).map(|bit| {
        let x = bit * side;
        let base = format!("drawbox=x={x}:y={top}:w={side}:h={}:t=fill", height / 8);
        format!("{base}:color=black,{base}:color=white:enable='mod(floor(n/{})\\,2)'", 1 << bit)
    });
    boxes.collect::<Vec<_>>().join(",")
}

fn ffmpeg_version() -> String {
    let mut command = Command::new("ffmpeg");
    command.arg("-version");
    String::from_utf8_lossy(&run(command)).lines().next().unwrap_or_default().to_owned()
}

/// Runs a command and gives its output; fails the test with the command's own words.
pub(crate) fn run(mut command: Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = output.unwrap_or_else(|cause| {
        panic!("{:?} cannot be run ({cause}): these tests need FFmpeg's programs, install them (apt-get install ffmpeg)", command.get_program())
    });
    assert!(status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&stderr));
    stdout
}

/// A clip of the matrix.
pub(crate) const fn clip(
    name: &'static str,
    extension: &'static str,
    source: Source,
    arguments: &'static str,
) -> Clip {
    Clip { name, extension, source, arguments }
}

/// H.264 with B-frames, index in front.
pub(crate) const H264_FRONT: Clip = clip(
    "h264_front",
    "mp4",
    SMALL,
    "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p -movflags +faststart",
);

/// The same with sound, in a transport stream: times begin at 1.4 s.
pub(crate) const H264_TS: Clip =
    clip("h264_ts", "ts", SMALL, "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p -c:a mp2 -shortest");

/// MPEG-4 in AVI with its index.
pub(crate) const AVI: Clip = clip("mpeg4_avi", "avi", SMALL, "-c:v mpeg4 -g 25 -q:v 4 -bf 0");

/// Some MB of H.264, index at the end.
pub(crate) const NOISY_END: Clip =
    clip("noisy_end", "mp4", NOISY, "-c:v libx264 -preset ultrafast -crf 23 -g 25 -pix_fmt yuv420p");

/// The same, index in front.
pub(crate) const NOISY_FRONT: Clip =
    clip("noisy_front", "mp4", Source::Clip(&NOISY_END, ""), "-c copy -movflags +faststart");

/// The same with neither index nor sidx.
pub(crate) const NOISY_FRAGMENTS: Clip = clip(
    "noisy_fragments",
    "mp4",
    Source::Clip(&NOISY_END, ""),
    "-c copy -movflags frag_keyframe+empty_moov+default_base_moof+skip_trailer",
);

/// The same as Matroska with cues.
pub(crate) const NOISY_MKV: Clip = clip("noisy_mkv", "mkv", Source::Clip(&NOISY_END, ""), "-c copy");

/// The same as Matroska without cues.
pub(crate) const NOISY_LIVE_MKV: Clip =
    clip("noisy_live_mkv", "mkv", Source::Clip(&NOISY_END, ""), "-c copy -f matroska -live 1");

/// The same as a transport stream.
pub(crate) const NOISY_TS: Clip = clip("noisy_ts", "ts", Source::Clip(&NOISY_END, ""), "-c copy");

/// Some MB of MPEG-4 in AVI.
pub(crate) const NOISY_AVI: Clip = clip("noisy_avi", "avi", NOISY, "-c:v mpeg4 -g 25 -q:v 5 -bf 0");
