//! Objects that are no videos, or not any more: an error that names the object and the cause, never a panic, a hang
//! or a wrong frame.

use spectemp_engine::{FrameBatch, FrameError};
use spectemp_video::VideoError;

use crate::{
    clips::{AVI, Clip, H264_FRONT, H264_TS, SMALL, Source, clip},
    damage::{Dice, cut, find, sprinkled},
    oracle::Oracle,
    support::{exact, open, within},
    times::check_frame,
};

/// Fails to open, with a message that names the object.
fn refused(name: &str, bytes: Vec<u8>) -> VideoError {
    let error = within(open(name, bytes)).map(|_| panic!("{name} was opened")).unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
    assert!(!error.is_transient(), "{error}");
    error
}

/// Opens and reads; an error must name object and position.
fn attempt(name: &str, bytes: Vec<u8>, times_s: &[f64]) -> Result<FrameBatch, String> {
    let message = within(async {
        let video = open(name, bytes).await.map_err(|error| error.to_string())?;
        exact(&video, times_s).await.map_err(|error| match error {
            FrameError::Permanent(message) => message,
            other => panic!("{name}: trying again would not help, but it says {other:?}"),
        })
    });
    message.inspect_err(|message| assert!(message.contains(name) && message.contains("byte"), "{message}"))
}

#[test]
fn no_bytes() {
    assert!(matches!(refused("empty.mp4", Vec::new()), VideoError::Empty { .. }));
}

#[test]
fn text_named_mp4() {
    let text = "This is a shopping list: bread, milk, apples.\n".repeat(500);
    assert!(matches!(refused("list.mp4", text.into_bytes()), VideoError::NotAVideo { .. }));
}

#[test]
fn a_few_bytes() {
    assert!(matches!(refused("short.mp4", b"hi".to_vec()), VideoError::NotAVideo { .. }));
}

#[test]
fn random_bytes() {
    let mut dice = Dice(1);
    let bytes = (0..300_000).map(|_| dice.roll() as u8).collect();
    assert!(matches!(refused("noise.mp4", bytes), VideoError::NotAVideo { .. }));
}

#[test]
fn sound_only() {
    for (extension, arguments) in
        [("m4a", "-vn -c:a aac"), ("ts", "-vn -c:a mp2"), ("mkv", "-vn -c:a aac"), ("wav", "-vn")]
    {
        let clip = clip("sound_only", extension, Source::Clip(&H264_TS, ""), arguments);
        let error = refused("sound.mp4", clip.bytes());
        assert!(matches!(error, VideoError::NoVideoStream { .. }), "{extension}: {error}");
    }
}

#[test]
fn a_picture_is_not_mistaken_for_cover_art() {
    let clip = clip(
        "cover_only",
        "m4a",
        Source::Clip(&H264_TS, "-f lavfi -i testsrc2=size=64x64:rate=1:duration=1"),
        "-map 1:a -map 0:v -c:a aac -c:v mjpeg -pix_fmt yuvj420p -disposition:v:0 attached_pic",
    );
    assert!(matches!(refused("song.m4a", clip.bytes()), VideoError::NoVideoStream { .. }));
}

#[test]
fn mp4_cut_before_its_index_ends() {
    let at_end = clip("mp4_h264_index_at_end", "mp4", Source::Clip(&H264_FRONT, ""), "-c copy");
    for percent in [1, 10, 50, 90, 97] {
        let error = refused("cut.mp4", cut(at_end.bytes(), percent));
        assert!(
            matches!(error, VideoError::NotAVideo { .. } | VideoError::Broken { .. }),
            "{percent} %: {error}"
        );
    }
}

#[test]
fn mp4_cut_behind_its_index() {
    let oracle = Oracle::of(&H264_FRONT.path());
    for percent in [20, 50, 90] {
        let bytes = cut(H264_FRONT.bytes(), percent);
        let message = attempt("cut.mp4", bytes.clone(), &[3.9]).unwrap_err();
        assert!(message.contains("3.9") || message.contains("time"), "{message}");
        within(async {
            let video = open("cut.mp4", bytes).await.unwrap();
            let batch = exact(&video, &[0.1]).await.unwrap();
            check_frame(video.probe(), &oracle, &batch.frames[0], oracle.at(0.1), 0);
        });
    }
}

/// Frames before the cut are right; behind it there is an error, or the last frame with a warning.
fn check_cut_stream(clip: &Clip, percent: usize) {
    let oracle = Oracle::of(&clip.path());
    let bytes = cut(clip.bytes(), percent);
    within(async {
        let video = open("cut.bin", bytes.clone()).await.unwrap();
        let batch = exact(&video, &[0.1, 0.5]).await.unwrap();
        for frame in &batch.frames {
            check_frame(video.probe(), &oracle, frame, oracle.at(frame.requested_s), 0);
        }
    });
    if let Ok(batch) = attempt("cut.bin", bytes, &[3.9]) {
        let frame = &batch.frames[0];
        let end = 4.0 * percent as f64 / 100.0 + 1.0;
        assert!(
            frame.pts_s > 0.5 && frame.pts_s < end,
            "a frame at {} of a file cut near there",
            frame.pts_s
        );
        assert!(!batch.warnings.is_empty(), "the last frame stands in, and nothing says so");
    }
}

#[test]
fn ts_cut() {
    check_cut_stream(&H264_TS, 50);
}

#[test]
fn mkv_cut() {
    let mkv = clip("mkv_h264", "mkv", Source::Clip(&H264_FRONT, ""), "-c copy");
    check_cut_stream(&mkv, 60);
}

#[test]
fn avi_cut() {
    check_cut_stream(&AVI, 60);
}

#[test]
fn fragments_cut() {
    let fragments = clip(
        "mp4_fragments_no_mfra",
        "mp4",
        Source::Clip(&H264_FRONT, ""),
        "-c copy -movflags frag_keyframe+empty_moov+default_base_moof+skip_trailer",
    );
    check_cut_stream(&fragments, 60);
}

#[test]
fn headers_cut() {
    for clip in [AVI, H264_TS, clip("mkv_h264", "mkv", Source::Clip(&H264_FRONT, ""), "-c copy")] {
        for length in [4, 100, 400] {
            let mut bytes = clip.bytes();
            bytes.truncate(length);
            let error = refused("head.bin", bytes);
            assert!(!error.to_string().is_empty());
        }
    }
}

/// The chunk offsets of the video track, changed by `change`.
fn with_offsets(mut bytes: Vec<u8>, change: impl Fn(u32) -> u32) -> Vec<u8> {
    let table = find(&bytes, b"stco") + 8;
    let count = u32::from_be_bytes(bytes[table..table + 4].try_into().unwrap()) as usize;
    assert!(count > 0);
    for entry in 0..count {
        let at = table + 4 + entry * 4;
        let offset = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        bytes[at..at + 4].copy_from_slice(&change(offset).to_be_bytes());
    }
    bytes
}

#[test]
fn index_that_points_behind_the_end() {
    let bytes = with_offsets(H264_FRONT.bytes(), |offset| offset + 0x1000_0000);
    let message = attempt("index.mp4", bytes, &[0.0, 2.0]).unwrap_err();
    assert!(message.contains("end") || message.contains("broken") || message.contains("index"), "{message}");
}

#[test]
fn index_that_points_beside_the_frames() {
    for shift in [7, 1000] {
        let bytes = with_offsets(H264_FRONT.bytes(), |offset| offset + shift);
        attempt("index.mp4", bytes, &[1.0, 2.0]).unwrap_err();
    }
}

/// Opens and reads bytes that may be damaged anywhere: an error must name the object, and nothing may panic or hang.
/// True where frames came.
fn survives(bytes: Vec<u8>) -> bool {
    let read = within(async {
        let video = open("damaged.bin", bytes).await.map_err(|error| error.to_string())?;
        exact(&video, &[0.5, 2.0, 3.9]).await.map_err(|error| error.to_string())
    });
    read.map_err(|message| assert!(message.contains("damaged.bin"), "{message}")).is_ok()
}

#[test]
fn index_of_nonsense() {
    let mut dice = Dice(2);
    let whole = H264_FRONT.bytes();
    let (moov, mdat) = (find(&whole, b"moov") + 4, find(&whole, b"mdat") - 4);
    assert!(survives(whole.clone()));
    let read = (0..40).filter(|_| {
        let head = sprinkled(whole[..mdat].to_vec(), moov, 30, &mut dice);
        survives([&head, &whole[mdat..]].concat())
    });
    assert!(read.count() < 40, "30 wrong bytes in each of 40 indices, and none was noticed");
}

#[test]
fn damaged_bytes_anywhere() {
    let mut dice = Dice(3);
    let mkv = clip("mkv_h264", "mkv", Source::Clip(&H264_FRONT, ""), "-c copy");
    let encoded = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -crf 30 -b:v 0";
    for clip in [H264_FRONT, mkv, clip("webm_vp9", "webm", SMALL, encoded), H264_TS, AVI] {
        assert!(survives(clip.bytes()), "{} as it is", clip.name);
        for count in [1, 10, 100, 1000] {
            survives(sprinkled(clip.bytes(), 0, count, &mut dice));
        }
    }
}

#[test]
fn times_that_make_no_sense() {
    within(async {
        let video = open("clip.mp4", H264_FRONT.bytes()).await.unwrap();
        for times in [[-1.0, 1.0], [f64::NAN, 1.0], [0.5, f64::INFINITY]] {
            let error = exact(&video, &times).await.map(|_| panic!("{times:?} gave frames")).unwrap_err();
            assert!(
                matches!(error, FrameError::Permanent(ref message) if message.contains("clip.mp4")),
                "{error}"
            );
        }
        let none = exact(&video, &[]).await.unwrap();
        assert!(none.frames.is_empty());
        let late = exact(&video, &[1e9]).await.unwrap();
        assert!(!late.warnings.is_empty(), "past the end, and nothing says so");
    });
}
