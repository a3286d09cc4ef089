//! Keyframe mode: the nearest keyframe within the tolerance, else the exact frame, and no frame twice.

use spectemp_engine::{FrameMode, FrameSource};

use crate::{
    clips::{AVI, Clip, H264_FRONT, H264_TS, SMALL, clip},
    oracle::Oracle,
    support::{open, request, within},
    times::check_frame,
};

/// Asks for `count` uniform times.
fn check(clip: &Clip, count: usize, tolerance_s: f64) {
    let oracle = Oracle::of(&clip.path());
    within(async {
        let video = open(&format!("{}.{}", clip.name, clip.extension), clip.bytes()).await.unwrap();
        let step = video.facts().duration_s / count as f64;
        let times: Vec<f64> = (0..count).map(|k| (k as f64 + 0.5) * step).collect();
        let batch = video.frames(request(&times, FrameMode::Keyframe { tolerance_s })).await.unwrap();
        let asked: Vec<f64> = batch.frames.iter().map(|frame| frame.requested_s).collect();
        assert_eq!(asked, times);
        let mut seen = Vec::new();
        for frame in &batch.frames {
            let n = oracle.starting_at(frame.pts_s).unwrap_or_else(|| panic!("no frame at {}", frame.pts_s));
            check_frame(video.probe(), &oracle, frame, n, 0);
            assert!(!seen.contains(&n), "frame {n} stands for two times");
            seen.push(n);
        }
        for (frame, n) in batch.frames.iter().zip(&seen) {
            let asked = frame.requested_s;
            let distance = |s: f64| (s - asked).abs();
            let keyframes =
                oracle.frames.iter().filter(|frame| frame.keyframe).map(|frame| distance(frame.s));
            let nearest = keyframes.fold(f64::INFINITY, f64::min);
            if nearest <= tolerance_s - 1e-6 {
                assert!(
                    (distance(frame.pts_s) - nearest).abs() < 1e-5,
                    "{asked}: {} s, nearest {nearest}",
                    frame.pts_s
                );
            } else if nearest > tolerance_s + 1e-6 {
                assert_eq!(*n, oracle.at(asked), "{asked}: no keyframe is near, so the exact frame");
            }
        }
    });
}

#[test]
fn one_sample_per_gop() {
    check(&H264_FRONT, 4, 0.5);
}

#[test]
fn narrow_tolerance_mixes_keyframes_and_exact_frames() {
    check(&H264_FRONT, 10, 0.12 * 0.4);
}

#[test]
fn more_samples_than_keyframes() {
    check(&H264_FRONT, 20, 0.5 * 0.2);
}

#[test]
fn no_tolerance_is_exact_but_on_keyframes() {
    check(&H264_FRONT, 7, 0.0);
}

#[test]
fn transport_stream() {
    check(&H264_TS, 4, 0.5);
    check(&H264_TS, 10, 0.2);
}

#[test]
fn avi() {
    check(&AVI, 4, 0.5);
}

#[test]
fn open_gops() {
    let encoded = "-c:v libx264 -preset veryfast -g 20 -bf 3 -x264-params open-gop=1 -pix_fmt yuv420p";
    check(&clip("mp4_h264_open_gop", "mp4", SMALL, encoded), 8, 0.25);
}

#[test]
fn a_single_keyframe() {
    let encoded = "-c:v libx264 -preset veryfast -g 1000 -sc_threshold 0 -pix_fmt yuv420p";
    check(&clip("mp4_h264_one_keyframe", "mp4", SMALL, encoded), 5, 0.4);
}

#[test]
fn only_keyframes() {
    check(
        &clip("mp4_h264_intra", "mp4", SMALL, "-c:v libx264 -preset veryfast -g 1 -pix_fmt yuv420p"),
        50,
        0.04,
    );
}
