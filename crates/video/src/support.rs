//! What the FFmpeg libraries on this machine can do, for `spectemp doctor`.

use ffmpeg_next::{codec, decoder, encoder};

/// FFmpeg's libraries as they were linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FfmpegSupport {
    /// Version of libavcodec, `59.37.100` for example.
    pub avcodec: String,
    /// Version of libavformat.
    pub avformat: String,
    /// The licence that this build of FFmpeg is under: a GPL build makes a distributed binary GPL too.
    pub licence: String,
    /// Codecs that archives use, and whether there is a decoder.
    pub decoders: Vec<(&'static str, bool)>,
    /// Whether H.264 can be encoded (libx264), which only the demonstration needs.
    pub h264_encoder: bool,
}

const ARCHIVE_CODECS: [(&str, codec::Id); 7] = [
    ("H.264", codec::Id::H264),
    ("HEVC", codec::Id::HEVC),
    ("VP9", codec::Id::VP9),
    ("AV1", codec::Id::AV1),
    ("MPEG-4", codec::Id::MPEG4),
    ("MPEG-2", codec::Id::MPEG2VIDEO),
    ("MJPEG", codec::Id::MJPEG),
];

/// Asks the libraries.
pub fn ffmpeg_support() -> FfmpegSupport {
    let version = |number: u32| format!("{}.{}.{}", number >> 16, (number >> 8) & 0xff, number & 0xff);
    FfmpegSupport {
        avcodec: version(codec::version()),
        avformat: version(ffmpeg_next::format::version()),
        licence: codec::license().to_owned(),
        decoders: ARCHIVE_CODECS.iter().map(|(name, id)| (*name, decoder::find(*id).is_some())).collect(),
        h264_encoder: encoder::find_by_name("libx264").is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_name_themselves() {
        let support = ffmpeg_support();
        assert!(support.avcodec.split('.').all(|part| part.parse::<u32>().is_ok()), "{}", support.avcodec);
        assert!(!support.licence.is_empty());
        assert!(support.decoders.iter().any(|(name, there)| *name == "H.264" && *there));
    }
}
