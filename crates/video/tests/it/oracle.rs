//! What FFmpeg's own programs say of a file: every frame's time, whether it is a keyframe, and its pixels.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::clips::run;

/// All frames of a file in the order of display.
pub(crate) struct Oracle {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Seconds per tick.
    pub(crate) tick: f64,
    /// False where the container keeps no presentation times (AVI with B-frames): frame n is shown at n / rate then.
    pub(crate) timed: bool,
    pub(crate) frames: Vec<OracleFrame>,
    rgb: Vec<u8>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OracleFrame {
    /// On the container's clock.
    pub(crate) stream_s: f64,
    /// From the first displayed frame.
    pub(crate) s: f64,
    pub(crate) keyframe: bool,
}

impl Oracle {
    /// Decodes a whole file with `ffprobe` (times) and `ffmpeg` (pixels, not turned, in the coded size).
    pub(crate) fn of(path: &Path) -> Self {
        let mut command = Command::new("ffprobe");
        command.args(["-v", "error", "-select_streams", "V:0", "-of", "json", "-show_entries"]);
        command
            .arg("stream=time_base,avg_frame_rate,width,height:frame=best_effort_timestamp,key_frame")
            .arg(path);
        let report: Value = serde_json::from_slice(&run(command)).unwrap();
        let stream = &report["streams"][0];
        let side = |name: &str| u32::try_from(stream[name].as_u64().unwrap()).unwrap();
        let ratio = |name: &str| {
            let (num, den) = stream[name].as_str().unwrap().split_once('/').unwrap();
            num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap()
        };
        let (tick, rate) = (ratio("time_base"), ratio("avg_frame_rate"));
        let list = report["frames"].as_array().unwrap();
        let ticks: Vec<_> = list.iter().map(|frame| frame["best_effort_timestamp"].as_i64()).collect();
        let timed = ticks.iter().all(Option::is_some);
        let first = ticks[0].unwrap_or_default();
        let frames = list.iter().zip(&ticks).enumerate().map(|(n, (frame, ticks_of))| {
            let s = match ticks_of {
                Some(this) if timed => (this - first) as f64 * tick,
                _ => n as f64 / rate,
            };
            // ffprobe names no time for the frame that is drained last: it follows the others.
            let stream_s = ticks_of.map_or(first as f64 * tick + s, |this| this as f64 * tick);
            OracleFrame { stream_s, s, keyframe: frame["key_frame"] == 1 }
        });
        let frames = frames.collect();
        let oracle = Self {
            width: side("width"),
            height: side("height"),
            tick,
            timed,
            frames,
            rgb: decode(path, true),
        };
        oracle.check(path);
        oracle
    }

    /// The two programs must agree, and the pictures must be told apart, else the tests prove nothing.
    fn check(&self, path: &Path) {
        let frame = (self.width * self.height * 3) as usize;
        assert_eq!(
            self.rgb.len(),
            frame * self.frames.len(),
            "ffprobe and ffmpeg decode differently: {path:?}"
        );
        assert!(self.frames.windows(2).all(|pair| pair[0].s < pair[1].s), "times do not rise: {path:?}");
        for n in 1..self.frames.len() {
            let difference = largest_difference(self.rgb(n - 1), self.rgb(n));
            assert!(difference > 20, "frames {} and {n} of {path:?} look the same", n - 1);
        }
    }

    /// The number of the frame shown at a time: the last that does not begin after it.
    pub(crate) fn at(&self, s: f64) -> usize {
        self.frames.iter().rposition(|frame| frame.s <= s + 1e-7).unwrap_or(0)
    }

    /// The number of the frame that begins at a time.
    pub(crate) fn starting_at(&self, s: f64) -> Option<usize> {
        self.frames.iter().position(|frame| (frame.s - s).abs() < 1e-5)
    }

    pub(crate) fn rgb(&self, n: usize) -> &[u8] {
        let frame = (self.width * self.height * 3) as usize;
        &self.rgb[n * frame..(n + 1) * frame]
    }

    /// Seconds from the first frame to the beginning of the last.
    pub(crate) fn last_s(&self) -> f64 {
        self.frames.last().unwrap().s
    }
}

/// All frames of a file as its display matrix turns them: width and height are those of the oracle, or swapped.
pub(crate) fn turned_by_ffmpeg(path: &Path) -> Vec<u8> {
    decode(path, false)
}

fn decode(path: &Path, as_coded: bool) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin"]);
    if as_coded {
        command.arg("-noautorotate");
    }
    command.arg("-i").arg(path).args(["-map", "0:V:0", "-fps_mode", "passthrough", "-sws_flags", "bicubic"]);
    command.args(["-pix_fmt", "rgb24", "-f", "rawvideo", "-"]);
    run(command)
}

/// The largest difference of two samples.
pub(crate) fn largest_difference(one: &[u8], other: &[u8]) -> u8 {
    assert_eq!(one.len(), other.len(), "pictures differ in size");
    one.iter().zip(other).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}
