//! Containers × codecs × what makes their clocks and pictures special: exact frames equal FFmpeg's own decode.
//!
//! The conversion to RGB is the same (swscale), so pixels are equal byte for byte; where a picture is also stretched
//! by its sample aspect ratio, 2 levels are allowed.

use crate::{
    clips::{AVI, Clip, H264_FRONT, H264_TS, SMALL, Source, clip, small},
    damage::without_avi_index,
    oracle::{Oracle, largest_difference, turned_by_ffmpeg},
    support::{one, open, within},
    times::check_exact,
};

fn check(clip: &Clip, tolerance: u8) {
    let oracle = Oracle::of(&clip.path());
    within(async {
        let video = open(&format!("{}.{}", clip.name, clip.extension), clip.bytes()).await.unwrap();
        check_exact(&video, &oracle, tolerance).await;
    });
}

macro_rules! exact {
    ($($name:ident: $extension:literal, $source:expr, $arguments:literal;)*) => {$(
        #[test]
        fn $name() {
            check(&clip(stringify!($name), $extension, $source, $arguments), 0);
        }
    )*};
}

const FRONT: Source = Source::Clip(&H264_FRONT, "");

#[test]
fn mp4_h264_index_in_front() {
    check(&H264_FRONT, 0);
}

exact! {
    mp4_h264_index_at_end: "mp4", FRONT, "-c copy";
    mp4_h264_sound_first: "mp4", Source::Clip(&H264_FRONT, "-f lavfi -i sine=duration=4"),
        "-map 0:a -map 1:v -c:v copy -c:a aac";
    mp4_h264_one_keyframe: "mp4", SMALL, "-c:v libx264 -preset veryfast -g 1000 -sc_threshold 0 -pix_fmt yuv420p";
    mp4_h264_intra: "mp4", SMALL, "-c:v libx264 -preset veryfast -g 1 -pix_fmt yuv420p";
    mp4_h264_open_gop: "mp4", SMALL, "-c:v libx264 -preset veryfast -g 20 -bf 3 -x264-params open-gop=1 -pix_fmt yuv420p";
    mp4_h264_pyramid: "mp4", SMALL, "-c:v libx264 -preset medium -g 40 -bf 6 -x264-params b-pyramid=normal:b-adapt=0:open-gop=1 -pix_fmt yuv420p";
    mp4_h264_10_bit: "mp4", SMALL, "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p10le";
    mp4_h264_422: "mp4", SMALL, "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv422p";
    mp4_h264_444: "mp4", SMALL, "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv444p";
    mp4_h264_gray: "mp4", SMALL, "-c:v libx264 -preset veryfast -g 25 -pix_fmt gray";
    mp4_h264_interlaced: "mp4", small("interlace"), "-c:v libx264 -preset veryfast -g 25 -flags +ilme+ildct -pix_fmt yuv420p";
    mp4_h264_cover_first: "mp4", Source::Clip(&H264_FRONT, "-f lavfi -i testsrc2=size=64x64:rate=1:duration=1"),
        "-map 0:v -map 1:v -c:v:0 mjpeg -pix_fmt:v:0 yuvj420p -disposition:v:0 attached_pic -c:v:1 copy";
    mp4_hevc: "mp4", SMALL, "-c:v libx265 -preset superfast -x265-params log-level=error:keyint=25:open-gop=0:bframes=3 -pix_fmt yuv420p -tag:v hvc1";
    mp4_hevc_open_gop_10_bit: "mp4", SMALL, "-c:v libx265 -preset superfast -x265-params log-level=error:keyint=20:open-gop=1:bframes=4 -pix_fmt yuv420p10le";
    mp4_vp9: "mp4", SMALL, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -crf 30 -b:v 0";
    mp4_av1: "mp4", SMALL, "-c:v libsvtav1 -preset 12 -g 25 -crf 35 -pix_fmt yuv420p";
    mp4_av1_10_bit: "mp4", SMALL, "-c:v libsvtav1 -preset 12 -g 25 -crf 35 -pix_fmt yuv420p10le";
    mp4_mpeg4_b_frames: "mp4", SMALL, "-c:v mpeg4 -g 25 -q:v 4 -bf 2";
    mov_mpeg2: "mov", SMALL, "-c:v mpeg2video -g 15 -q:v 4 -bf 2";
    mov_prores_10_bit: "mov", SMALL, "-c:v prores_ks -profile:v 0";
    mov_mjpeg_full_range: "mov", SMALL, "-c:v mjpeg -q:v 4 -pix_fmt yuvj420p";
}

// Fragments
exact! {
    mp4_fragments: "mp4", FRONT, "-c copy -movflags frag_keyframe+empty_moov+default_base_moof";
    mp4_fragments_no_mfra: "mp4", FRONT, "-c copy -movflags frag_keyframe+empty_moov+default_base_moof+skip_trailer";
    mp4_fragments_sidx: "mp4", FRONT, "-c copy -movflags frag_keyframe+empty_moov+default_base_moof+dash+skip_trailer";
    mp4_fragments_global_sidx: "mp4", FRONT, "-c copy -movflags frag_keyframe+empty_moov+default_base_moof+dash+global_sidx+skip_trailer";
    mp4_fragments_amid_gops: "mp4", FRONT, "-c copy -movflags empty_moov+default_base_moof+skip_trailer -frag_duration 300000";
    mp4_fragments_of_hevc: "mp4", SMALL, "-c:v libx265 -preset superfast -x265-params log-level=error:keyint=20:bframes=4 -movflags frag_keyframe+empty_moov+default_base_moof+skip_trailer";
    mp4_fragments_with_sound: "mp4", Source::Clip(&H264_FRONT, "-f lavfi -i sine=duration=4"),
        "-map 0:a -map 1:v -c:v copy -c:a aac -movflags frag_keyframe+empty_moov+default_base_moof+skip_trailer";
}

// Clocks
exact! {
    mp4_ntsc: "mp4", Source::Made { width: 160, height: 120, rate: "30000/1001", seconds: 4, filters: "" },
        "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p";
    mp4_vfr: "mp4", small("select=not(mod(n\\,3))+lt(mod(n\\,20)\\,8)"),
        "-fps_mode vfr -c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p";
    mkv_vfr: "mkv", small("select=not(mod(n\\,5))+lt(mod(n\\,30)\\,11)"),
        "-fps_mode vfr -c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p";
    mp4_edit_list_cut_amid_gop: "mp4", Source::Clip(&H264_FRONT, "-ss 1.3"), "-c copy";
    mp4_edit_list_starts_late: "mp4", Source::Clip(&H264_FRONT, "-f lavfi -i sine=duration=7 -itsoffset 2.5"),
        "-map 0:a -map 1:v -c:v copy -c:a aac";
    mkv_starts_late: "mkv", Source::Clip(&H264_FRONT, "-f lavfi -i sine=duration=7 -itsoffset 2.5"),
        "-map 0:a -map 1:v -c:v copy -c:a aac";
    ts_starts_late: "ts", FRONT, "-c copy -output_ts_offset 5000";
    ts_clock_wraps: "ts", FRONT, "-c copy -output_ts_offset 95440.5";
}

// Colours and geometry
exact! {
    mp4_bt709: "mp4", small("scale=out_color_matrix=bt709"),
        "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p -colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv";
    mp4_bt601: "mp4", small("scale=out_color_matrix=bt601"),
        "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p -colorspace smpte170m -color_range tv";
    mp4_full_range: "mp4", small("scale=out_range=full"),
        "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuvj420p -color_range pc";
    mp4_full_range_bt709: "mp4", small("scale=out_range=full:out_color_matrix=bt709"),
        "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuvj420p -color_range pc -colorspace bt709";
    mp4_bt2020_10_bit: "mp4", small("scale=out_color_matrix=bt2020"),
        "-c:v libx265 -preset superfast -x265-params log-level=error:keyint=25 -pix_fmt yuv420p10le -colorspace bt2020nc -color_primaries bt2020 -color_trc smpte2084";
    mp4_rotated_90: "mp4", FRONT, "-c copy -metadata:s:v:0 rotate=90";
    mp4_rotated_180: "mp4", FRONT, "-c copy -metadata:s:v:0 rotate=180";
    mp4_rotated_270: "mp4", FRONT, "-c copy -metadata:s:v:0 rotate=270";
    webm_odd_sides: "webm", Source::Made { width: 161, height: 121, rate: "25", seconds: 4, filters: "" },
        "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -crf 30 -b:v 0 -pix_fmt yuv420p";
}

#[test]
fn wide_and_narrow_samples_are_stretched() {
    let encoded = "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p";
    for (name, filters, aspect) in
        [("wide_samples", "setsar=4/3", 16.0 / 9.0), ("narrow_samples", "setsar=8/9", 32.0 / 27.0)]
    {
        let clip = clip(name, "mp4", small(filters), encoded);
        let video = within(open("clip.mp4", clip.bytes())).unwrap();
        let shown = f64::from(video.probe().width) / f64::from(video.probe().height);
        assert!((shown / aspect - 1.0).abs() < 0.01, "{name}: {shown} instead of {aspect}");
        check(&clip, 2);
    }
}

#[test]
fn rotation_is_the_way_ffmpeg_turns() {
    for (degrees, sides) in [("90", (120, 160)), ("180", (160, 120)), ("270", (120, 160))] {
        let arguments = format!("-c copy -metadata:s:v:0 rotate={degrees}");
        let clip = clip("rotation", "mp4", FRONT, arguments.leak());
        let expected = turned_by_ffmpeg(&clip.path());
        let frame = within(async { one(&open("clip.mp4", clip.bytes()).await.unwrap(), 0.0).await });
        assert_eq!((frame.images[0].width, frame.images[0].height), sides);
        let difference = largest_difference(&frame.images[0].data, &expected[..160 * 120 * 3]);
        assert!(difference <= 2, "{degrees} degrees: {difference}");
    }
}

// Matroska and WebM
exact! {
    mkv_h264: "mkv", FRONT, "-c copy";
    mkv_h264_cues_in_front: "mkv", FRONT, "-c copy -cues_to_front 1";
    mkv_h264_no_cues: "mkv", FRONT, "-c copy -f matroska -live 1";
    mkv_hevc_open_gop: "mkv", SMALL, "-c:v libx265 -preset superfast -x265-params log-level=error:keyint=20:bframes=4 -pix_fmt yuv420p";
    mkv_mpeg2: "mkv", SMALL, "-c:v mpeg2video -g 15 -q:v 4 -bf 2";
    mkv_mpeg4: "mkv", SMALL, "-c:v mpeg4 -g 25 -q:v 4";
    mkv_av1: "mkv", SMALL, "-c:v libsvtav1 -preset 12 -g 25 -crf 35 -pix_fmt yuv420p";
    webm_vp8: "webm", SMALL, "-c:v libvpx -deadline realtime -cpu-used 8 -g 25 -b:v 400k";
    webm_vp9: "webm", SMALL, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -crf 30 -b:v 0";
    webm_vp9_alternate_references: "webm", SMALL, "-c:v libvpx-vp9 -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 20 -g 50 -crf 30 -b:v 0";
    webm_vp9_10_bit: "webm", SMALL, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -crf 30 -b:v 0 -pix_fmt yuv420p10le";
    webm_vp9_no_cues: "webm", SMALL, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -crf 30 -b:v 0 -live 1";
    webm_av1: "webm", SMALL, "-c:v libaom-av1 -usage realtime -cpu-used 8 -g 25 -crf 40 -b:v 0";
}

#[test]
fn ts_h264_with_sound() {
    check(&H264_TS, 0);
}

// Transport streams
exact! {
    ts_h264: "ts", FRONT, "-c copy";
    ts_h264_open_gop: "ts", SMALL, "-c:v libx264 -preset veryfast -g 20 -bf 3 -x264-params open-gop=1 -pix_fmt yuv420p";
    ts_hevc: "ts", SMALL, "-c:v libx265 -preset superfast -x265-params log-level=error:keyint=25:bframes=3 -pix_fmt yuv420p";
    ts_mpeg2: "ts", SMALL, "-c:v mpeg2video -g 15 -q:v 4 -bf 2";
    ts_mpeg2_open_gop: "ts", SMALL, "-c:v mpeg2video -g 15 -q:v 4 -bf 2 -flags -cgop";
    m2ts_h264: "m2ts", FRONT, "-c copy";
}

// Program streams and Flash
exact! {
    ps_mpeg2: "mpg", SMALL, "-c:v mpeg2video -g 15 -q:v 4 -bf 2 -f vob";
    ps_mpeg2_with_sound: "mpg", SMALL, "-c:v mpeg2video -g 15 -q:v 4 -bf 2 -c:a mp2 -shortest -f vob";
    flv_h264: "flv", FRONT, "-c copy";
    flv_h264_no_duration: "flv", FRONT, "-c copy -flvflags no_duration_filesize";
}

#[test]
fn avi_mpeg4() {
    check(&AVI, 0);
}

// AVI
exact! {
    avi_mpeg2: "avi", SMALL, "-c:v mpeg2video -g 15 -q:v 4 -bf 0";
    avi_mpeg4_b_frames: "avi", SMALL, "-c:v mpeg4 -g 25 -q:v 4 -bf 2";
    avi_mjpeg: "avi", SMALL, "-c:v mjpeg -q:v 4 -pix_fmt yuvj420p";
    avi_h264: "avi", SMALL, "-c:v libx264 -preset veryfast -g 25 -bf 0 -pix_fmt yuv420p";
    avi_with_sound: "avi", SMALL, "-c:v mpeg4 -g 25 -q:v 4 -bf 0 -c:a mp2 -shortest";
}

#[test]
fn avi_without_index() {
    let bytes = without_avi_index(AVI.bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.avi");
    std::fs::write(&path, &bytes).unwrap();
    let oracle = Oracle::of(&path);
    within(async {
        let video = open("cut.avi", bytes).await.unwrap();
        check_exact(&video, &oracle, 0).await;
    });
}
