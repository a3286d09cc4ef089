//! The check that every clip of the matrix goes through: exact frames at many times.

use spectemp_engine::{Frame, FrameSource, RgbImage, resize_bicubic};
use spectemp_video::{Probe, Video};

use crate::{
    oracle::{Oracle, largest_difference},
    support::{exact, one},
};

/// Opens nothing itself: compares an opened video with the oracle at many times, forwards and backwards.
pub(crate) async fn check_exact(video: &Video, oracle: &Oracle, tolerance: u8) {
    check_facts(video, oracle);
    let times = times_of(oracle);
    let batch = exact(video, &times).await.unwrap();
    assert_eq!(batch.frames.len(), times.len());
    for frame in &batch.frames {
        check_frame(video.probe(), oracle, frame, oracle.at(frame.requested_s), tolerance);
    }
    for n in [oracle.frames.len() * 2 / 3, oracle.frames.len() / 3, 1] {
        let frame = one(video, oracle.frames[n].s).await;
        check_frame(video.probe(), oracle, &frame, n, tolerance);
    }
}

/// On frames, between frames, just before the next one, the ends, and past the end.
fn times_of(oracle: &Oracle) -> Vec<f64> {
    let frames = &oracle.frames;
    let count = frames.len();
    let mut times = Vec::new();
    for (k, n) in [0, 1, 2].into_iter().chain((5..count - 2).step_by(count / 14)).enumerate() {
        let (this, next) = (frames[n].s, frames[n + 1].s);
        match k % 3 {
            0 => times.push(this),
            1 => times.push(0.5 * (this + next)),
            _ => times.push(next - 1e-4),
        }
    }
    times.extend([frames[count - 2].s, oracle.last_s(), oracle.last_s() + 0.01, oracle.last_s() + 100.0]);
    times
}

/// Geometry, clock and length as FFmpeg's programs see them.
fn check_facts(video: &Video, oracle: &Oracle) {
    let (facts, probe) = (video.facts(), video.probe());
    assert_eq!((probe.coded_width, probe.coded_height), (oracle.width, oracle.height));
    assert_eq!((facts.width, facts.height), (probe.width, probe.height));
    let start = oracle.frames[0].stream_s;
    assert!(!oracle.timed || (probe.start_s - start).abs() < 1e-5, "clock starts at {}", probe.start_s);
    let frame = oracle.last_s() / (oracle.frames.len() - 1) as f64;
    let end = oracle.last_s();
    let duration = facts.duration_s;
    assert!(duration > end + 1e-3 && duration < end + 2.5 * frame, "{duration} s, last frame at {end} s");
}

/// A frame must be frame `n` of the oracle: its times, its keyframe flag, its pixels.
pub(crate) fn check_frame(probe: &Probe, oracle: &Oracle, frame: &Frame, n: usize, tolerance: u8) {
    let want = oracle.frames[n];
    let asked = frame.requested_s;
    let near = |a: f64, b: f64| (a - b).abs() < (0.5 * oracle.tick).min(1e-4);
    assert!(near(frame.pts_s, want.s), "at {asked}: frame of {} instead of {n} of {}", frame.pts_s, want.s);
    assert!(
        near(frame.stream_pts_s, want.stream_s),
        "at {asked}: {} instead of {want:?}",
        frame.stream_pts_s
    );
    assert_eq!(frame.keyframe, want.keyframe, "keyframe flag at {asked} of {want:?}");
    let [image] = frame.images.as_slice() else { panic!("{} images of one frame", frame.images.len()) };
    let shown = displayed(probe, oracle, n);
    assert_eq!((image.width, image.height), (shown.width, shown.height));
    let difference = largest_difference(&image.data, &shown.data);
    assert!(difference <= tolerance, "at {asked}: pixels differ by up to {difference} from frame {n}");
}

/// The oracle's picture as it is shown: stretched by the sample aspect ratio, then turned.
fn displayed(probe: &Probe, oracle: &Oracle, n: usize) -> RgbImage {
    let data = oracle.rgb(n).into();
    let coded = RgbImage { width: oracle.width, height: oracle.height, data };
    let (width, height) = match probe.rotation {
        90 | 270 => (probe.height, probe.width),
        _ => (probe.width, probe.height),
    };
    let stretched = resize_bicubic(&coded, width, height).unwrap();
    (0..probe.rotation / 90).fold(stretched, |image, _| turned(&image))
}

/// A quarter turn clockwise.
fn turned(image: &RgbImage) -> RgbImage {
    let (width, height) = (image.height, image.width);
    let mut data = Vec::with_capacity(image.data.len());
    for y in 0..height {
        for x in 0..width {
            let from = ((image.height - 1 - x) * image.width + y) as usize * 3;
            data.extend_from_slice(&image.data[from..from + 3]);
        }
    }
    RgbImage { width, height, data: data.into() }
}
