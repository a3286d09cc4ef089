//! What is read of an object: a part of it, each byte once, and what is known of it not again.

use std::ops::Range;

use spectemp_engine::{FrameMode, FrameSource};
use spectemp_video::{OpenOptions, Video, VideoRecord};

use crate::{
    clips::{Clip, NOISY_AVI, NOISY_END, NOISY_FRAGMENTS, NOISY_FRONT, NOISY_LIVE_MKV, NOISY_MKV, NOISY_TS},
    damage::{find_last, without_avi_index},
    oracle::Oracle,
    server::{Fault, Server},
    support::{exact, request, within},
    times::check_frame,
};

/// Opens over HTTP, takes two exact frames and three keyframes, each with fresh caches, and holds the bytes against
/// the object's size.
fn check_fraction(bytes: Vec<u8>, oracle: &Oracle) {
    within(async {
        let server = Server::start(bytes).await;
        let size = server.object_bytes();
        assert!(size > 3 << 20, "{size} bytes are too few to prove anything");
        for (mode, times, most) in [
            (FrameMode::Exact, vec![7.33, 22.97], 60),
            (FrameMode::Keyframe { tolerance_s: 0.5 }, vec![2.6, 15.0, 27.6], 40),
        ] {
            let video = Video::open(server.object(), OpenOptions::default(), None).await.unwrap();
            let batch = video.frames(request(&times, mode)).await.unwrap();
            for frame in &batch.frames {
                let n =
                    oracle.starting_at(frame.pts_s).unwrap_or_else(|| panic!("no frame at {}", frame.pts_s));
                check_frame(video.probe(), oracle, frame, n, 0);
                if mode == FrameMode::Exact {
                    assert_eq!(n, oracle.at(frame.requested_s));
                } else {
                    assert!(frame.keyframe && (frame.pts_s - frame.requested_s).abs() <= 0.5, "{frame:?}");
                }
            }
            let (requests, read) = server.take();
            assert!(read * 100 < size * most, "{mode:?} read {read} bytes of {size} in {requests} requests");
            let io = video.io();
            assert_eq!((io.requests, io.bytes), (requests as u64, read), "the figures are the server's own");
            assert!(io.decoded_frames >= times.len() as u64 && !io.full_scan);
        }
    });
}

fn check_clip(clip: &Clip) {
    check_fraction(clip.bytes(), &Oracle::of(&clip.path()));
}

#[test]
fn mp4_index_in_front_is_read_in_part() {
    check_clip(&NOISY_FRONT);
}

#[test]
fn mp4_index_at_end_is_read_in_part() {
    check_clip(&NOISY_END);
}

#[test]
fn mp4_fragments_are_bisected() {
    check_clip(&NOISY_FRAGMENTS);
}

#[test]
fn mkv_is_read_in_part() {
    check_clip(&NOISY_MKV);
}

#[test]
fn mkv_without_cues_is_bisected() {
    check_clip(&NOISY_LIVE_MKV);
}

#[test]
fn ts_is_bisected() {
    check_clip(&NOISY_TS);
}

#[test]
fn avi_is_read_in_part() {
    check_clip(&NOISY_AVI);
}

/// Its frames carry no times, so places in it cannot be told apart: beyond a few MB it is read only if allowed.
#[test]
fn avi_without_index_is_scanned_only_if_allowed() {
    let oracle = Oracle::of(&NOISY_AVI.path());
    within(async {
        let server = Server::start(without_avi_index(NOISY_AVI.bytes())).await;
        let video = Video::open(server.object(), OpenOptions::default(), None).await.unwrap();
        let error = exact(&video, &[22.97]).await.map(|_| panic!("read without leave")).unwrap_err();
        assert!(error.to_string().contains("--allow-scan"), "{error}");
        assert!(server.take().1 * 100 < server.object_bytes() * 60, "it read on nevertheless");

        let allowed = OpenOptions { allow_scan: true, ..OpenOptions::default() };
        let video = Video::open(server.object(), allowed, None).await.unwrap();
        let batch = exact(&video, &[22.97]).await.unwrap();
        check_frame(video.probe(), &oracle, &batch.frames[0], oracle.at(22.97), 0);
        assert!(video.io().full_scan, "the figures say so");
    });
}

fn overlaps(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// The bytes of the index of [`NOISY_END`].
fn index_of(bytes: &[u8]) -> Range<u64> {
    let name = find_last(bytes, b"moov");
    name as u64 - 4..bytes.len() as u64
}

#[test]
fn other_times_read_no_index_again_and_the_same_times_nothing() {
    let bytes = NOISY_END.bytes();
    let index = index_of(&bytes);
    within(async {
        let server = Server::start(bytes).await;
        let video = Video::open(server.object(), OpenOptions::default(), None).await.unwrap();
        assert!(server.asked().iter().any(|asked| overlaps(&asked.range, &index)), "the index was read once");
        exact(&video, &[1.0, 7.0]).await.unwrap();
        server.take();
        exact(&video, &[4.0, 14.0]).await.unwrap();
        let asked = server.asked();
        assert!(!asked.is_empty());
        // The block that holds the last samples may reach into the index.
        let touched =
            asked.iter().filter(|asked| overlaps(&asked.range, &(index.start + (64 << 10)..index.end)));
        assert_eq!(touched.count(), 0, "{asked:?}");
        server.take();
        exact(&video, &[4.0, 14.0]).await.unwrap();
        assert_eq!(server.take(), (0, 0), "frames that are known cost nothing");
    });
}

#[test]
fn a_record_saves_the_index() {
    for clip in [NOISY_END, NOISY_FRONT, NOISY_MKV, NOISY_FRAGMENTS, NOISY_TS] {
        let oracle = Oracle::of(&clip.path());
        within(async {
            let server = Server::start(clip.bytes()).await;
            let first = Video::open(server.object(), OpenOptions::default(), None).await.unwrap();
            let expected = exact(&first, &[3.0, 9.0]).await.unwrap();
            let record = serde_json::to_string(&first.record()).unwrap();
            let (_, cold) = server.take();

            let known: VideoRecord = serde_json::from_str(&record).unwrap();
            let second = Video::open(server.object(), OpenOptions::default(), Some(known)).await.unwrap();
            let (requests, opening) = server.take();
            assert!(requests <= 1 && opening <= 64 << 10, "{}: {opening} bytes in {requests}", clip.name);
            assert_eq!(second.probe(), first.probe());
            let batch = exact(&second, &[3.0, 9.0]).await.unwrap();
            assert!(batch.frames == expected.frames, "{}: the same frames", clip.name);
            let (_, warm) = server.take();
            assert!(warm < cold, "{}: {warm} bytes with the record, {cold} without", clip.name);
            check_frame(second.probe(), &oracle, &batch.frames[1], oracle.at(9.0), 0);
        });
    }
}

#[test]
fn a_record_of_another_version_is_not_believed() {
    let oracle = Oracle::of(&NOISY_FRONT.path());
    within(async {
        let server = Server::start(NOISY_END.bytes()).await;
        let other = Video::open(server.object(), OpenOptions::default(), None).await.unwrap().record();
        let server = Server::start(NOISY_FRONT.bytes()).await;
        server.set(Fault::Changed);
        let video = Video::open(server.object(), OpenOptions::default(), Some(other)).await.unwrap();
        let batch = exact(&video, &[5.0]).await.unwrap();
        check_frame(video.probe(), &oracle, &batch.frames[0], oracle.at(5.0), 0);
    });
}
