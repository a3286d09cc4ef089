//! RGB frames in, an H.264 MP4 file or PNG bytes out.
//!
//! An [`Encoder`] writes beside its target (`NAME.part`) and moves the file there in [`Encoder::finish`], so that a file
//! under its own name is always whole; dropped before that, it takes its partial file away.
//!
//! Hazards. libx264 is deterministic for a given thread count only: who needs the same bytes on every machine sets
//! [`EncodeOptions::threads`]. An encoder stays on the thread that made it: run several encoders side by side instead.
//! Frames are converted with BT.601 coefficients and limited range, and the stream says so.

mod error;
mod options;
mod picture;

use std::path::{Path, PathBuf};

use ffmpeg_next::{
    self as ffmpeg, Dictionary, Packet, Rational, codec, color, encoder,
    format::{self, Pixel, context::Output},
    frame,
    software::scaling,
};

pub use self::error::EncodeError;
pub use self::options::{EncodeOptions, FrameRate, Preset};
pub use self::picture::{png_bytes, write_png};

/// Writes one H.264 MP4 file, frame by frame.
pub struct Encoder {
    output: Output,
    encoder: encoder::Video,
    scaler: scaling::Context,
    rgb: frame::Video,
    frame_base: Rational,
    stream_base: Rational,
    frames: u64,
    files: Files,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Frames in the file.
    pub frames: u64,
    /// Its size.
    pub bytes: u64,
}

impl Encoder {
    /// Starts the file `path` with frames of `width` × `height` px. An existing file stays until
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    /// Sizes that H.264 with 4:2:0 chroma cannot hold, options out of range, an FFmpeg without libx264, a folder that
    /// cannot be written to.
    pub fn create(
        path: &Path,
        width: u32,
        height: u32,
        options: &EncodeOptions,
    ) -> Result<Self, EncodeError> {
        options::check_size(width, height)?;
        options.check()?;
        init()?;
        let codec = encoder::find_by_name("libx264").ok_or(EncodeError::CodecMissing)?;
        let files = Files::beside(path)?;
        let mut output =
            format::output_as(&files.url, "mp4").map_err(|cause| files.error("create", cause))?;
        let encoder = open_codec(codec, width, height, options)?;
        let stream = |cause| EncodeError::codec("describe the stream", cause);
        let mut track = output.add_stream(codec).map_err(stream)?;
        track.set_parameters(&encoder);
        track.set_time_base(options.fps.frame_base());
        track.set_avg_frame_rate(options.fps.rational());
        let header = output.write_header_with(options.mp4()).map(drop);
        header.map_err(|cause| files.error("write the header of", cause))?;
        let stream_base = output.stream(0).map_or(options.fps.frame_base(), |track| track.time_base());
        let flags = scaling::Flags::BICUBIC | scaling::Flags::ACCURATE_RND;
        let scaler = scaling::Context::get(Pixel::RGB24, width, height, Pixel::YUV420P, width, height, flags)
            .map_err(|cause| EncodeError::codec("convert colours", cause))?;
        Ok(Self {
            output,
            encoder,
            scaler,
            rgb: frame::Video::new(Pixel::RGB24, width, height),
            frame_base: options.fps.frame_base(),
            stream_base,
            frames: 0,
            files,
        })
    }

    /// Adds one frame: 8 bit RGB, rows from the top, no padding. Frame n is shown at n / fps seconds.
    ///
    /// # Errors
    /// A buffer that does not fit the size, a failing codec, a full disk.
    pub fn push(&mut self, rgb: &[u8]) -> Result<(), EncodeError> {
        let (row, height) = (self.rgb.width() as usize * 3, self.rgb.height() as usize);
        if rgb.len() != row * height {
            return Err(EncodeError::FrameBytes { got: rgb.len(), expected: row * height });
        }
        let stride = self.rgb.stride(0);
        for (to, from) in self.rgb.data_mut(0).chunks_mut(stride).zip(rgb.chunks(row)) {
            to[..row].copy_from_slice(from);
        }
        // A fresh picture each time: the codec may still hold the one before.
        let mut picture = frame::Video::empty();
        self.scaler
            .run(&self.rgb, &mut picture)
            .map_err(|cause| EncodeError::codec("convert colours", cause))?;
        picture.set_pts(Some(self.frames as i64));
        self.encoder.send_frame(&picture).map_err(|cause| EncodeError::codec("encode", cause))?;
        self.frames += 1;
        self.drain()
    }

    /// Ends the file and moves it to its place.
    ///
    /// # Errors
    /// No frame at all, a failing codec, a full disk.
    pub fn finish(mut self) -> Result<Encoded, EncodeError> {
        if self.frames == 0 {
            return Err(EncodeError::NoFrames);
        }
        self.encoder.send_eof().map_err(|cause| EncodeError::codec("encode", cause))?;
        self.drain()?;
        self.output.write_trailer().map_err(|cause| self.files.error("write the index of", cause))?;
        let Self { output, files, frames, .. } = self;
        drop(output); // closes the file
        let bytes = files.commit()?;
        Ok(Encoded { frames, bytes })
    }

    fn drain(&mut self) -> Result<(), EncodeError> {
        let mut packet = Packet::empty();
        loop {
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {}
                Err(ffmpeg::Error::Eof | ffmpeg::Error::Other { errno: ffmpeg::error::EAGAIN }) => {
                    return Ok(());
                }
                Err(cause) => return Err(EncodeError::codec("encode", cause)),
            }
            packet.set_stream(0);
            packet.set_duration(1); // else the last frame has none, and the file ends one frame early
            packet.rescale_ts(self.frame_base, self.stream_base);
            packet.write_interleaved(&mut self.output).map_err(|cause| self.files.error("write", cause))?;
        }
    }
}

fn open_codec(
    codec: ffmpeg::Codec,
    width: u32,
    height: u32,
    options: &EncodeOptions,
) -> Result<encoder::Video, EncodeError> {
    let open = |cause| EncodeError::codec("open libx264", cause);
    let mut context = codec::Context::new_with_codec(codec);
    context.set_threading(codec::threading::Config::count(options.threads));
    context.set_flags(codec::Flags::GLOBAL_HEADER); // MP4 keeps the parameter sets in its index
    let mut video = context.encoder().video().map_err(open)?;
    video.set_width(width);
    video.set_height(height);
    video.set_format(Pixel::YUV420P);
    video.set_time_base(options.fps.frame_base());
    video.set_frame_rate(Some(options.fps.rational()));
    video.set_aspect_ratio(Rational(1, 1));
    video.set_colorspace(color::Space::SMPTE170M);
    video.set_color_range(color::Range::MPEG);
    if let Some(gop) = options.gop {
        video.set_gop(gop);
    }
    let mut settings = Dictionary::new();
    settings.set("preset", options.preset.as_str());
    settings.set("crf", &options.crf.to_string());
    video.open_with(settings).map_err(open)
}

/// Registers FFmpeg's parts once. Its log stays at errors: libx264 reports every file it makes otherwise.
fn init() -> Result<(), EncodeError> {
    ffmpeg::init().map_err(|cause| EncodeError::codec("start FFmpeg", cause))?;
    if ffmpeg::log::get_level().is_ok_and(|level| level == ffmpeg::log::Level::Info) {
        ffmpeg::log::set_level(ffmpeg::log::Level::Error);
    }
    Ok(())
}

/// The target and the partial file beside it, which is removed unless it is committed.
struct Files {
    target: PathBuf,
    part: PathBuf,
    /// `file:` in front, because FFmpeg would read `a:b.mp4` as protocol `a`.
    url: String,
}

impl Files {
    fn beside(path: &Path) -> Result<Self, EncodeError> {
        // FFmpeg takes paths as C strings, and the binding takes UTF-8 only.
        let text = path.to_str().filter(|text| !text.is_empty() && !text.contains('\0'));
        let text = text.ok_or_else(|| EncodeError::Path(path.to_path_buf()))?;
        let part = format!("{text}.part");
        Ok(Self { target: path.to_path_buf(), url: format!("file:{part}"), part: part.into() })
    }

    fn commit(self) -> Result<u64, EncodeError> {
        let moved = std::fs::rename(&self.part, &self.target).and_then(|()| std::fs::metadata(&self.target));
        moved.map(|file| file.len()).map_err(|cause| self.error("move into place", cause))
    }

    fn error(&self, step: &'static str, cause: impl std::fmt::Display) -> EncodeError {
        EncodeError::File { step, path: self.target.clone(), cause: cause.to_string() }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Fails where it was moved away or never made: both are fine.
        let _ = std::fs::remove_file(&self.part);
    }
}

#[cfg(test)]
mod tests;
