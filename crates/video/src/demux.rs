//! A container, opened over a [`RangeReader`]: its video stream, its index, its packets.

use std::sync::Arc;

use ffmpeg_next::{
    Dictionary, Error, Packet, codec,
    format::{
        context::{Input, StreamIo},
        stream::Stream,
    },
    media,
};

use crate::{
    VideoError,
    fetch::Pins,
    ffi::{self, Entry, SeekTo},
    meter::Call,
    reader::{Control, Patch, RangeReader},
    source::Source,
};

/// FFmpeg's buffer before the reader.
const BUFFER_BYTES: usize = 32 << 10;
/// Damaged packets in a row before a file is given up.
const MOST_DAMAGED: u32 = 1000;

/// Where MPEG timestamps begin anew.
const MPEG_CLOCK: i64 = 1 << 33;

/// What may be opened. Playlists and scripts that name other files are not among it.
const CONTAINERS: &str = "mov,mp4,m4a,matroska,webm,mpegts,avi,mpeg,flv,asf,ogg,ivf,gif,h264,hevc,m4v,mpegvideo,mjpeg,\
                          wav,mp3,flac,aac,ac3";

/// How a container is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct DemuxOptions {
    /// Do not look for an index beyond the header (fragmented MP4: it would walk through all fragments).
    pub(crate) ignore_index: bool,
    /// Read packets until the parameters are known (MPEG-TS, AVI).
    pub(crate) find_info: bool,
    /// Bytes that stand in for the object's.
    pub(crate) patch: Option<Patch>,
    /// Blocks of header and index.
    pub(crate) header: Arc<Pins>,
    /// A container that can only be read from the start may be read to its end for its length.
    pub(crate) may_pass: bool,
    /// MPEG timestamps have 33 bits: those of the packets are taken as the first ones at or after this time.
    pub(crate) wrap_from: Option<i64>,
    /// Other blocks that are in memory.
    pub(crate) pins: Arc<Pins>,
}

/// See the module.
pub(crate) struct Demuxer {
    input: Input,
    stream: usize,
    source: Arc<Source>,
    control: Arc<Control>,
    wrap_from: Option<i64>,
    /// The parameters have been looked for. FFmpeg crashes where that is asked of a container twice.
    informed: bool,
}

impl Demuxer {
    /// Opens the container. Blocks on the network where bytes are missing.
    pub(crate) fn open(
        source: &Arc<Source>,
        call: &Arc<Call>,
        options: &DemuxOptions,
    ) -> Result<Self, VideoError> {
        let control = Control::new(Arc::clone(source), Arc::clone(call));
        control.set_header(Arc::clone(&options.header));
        control.begin(call, Arc::clone(&options.pins));
        control.set_patch(options.patch.clone());
        control.note_blocks();
        let failed = |error: Error| opening_failed(source, &control, error);
        let io = StreamIo::from_read_seek_with_capacity(RangeReader::new(Arc::clone(&control)), BUFFER_BYTES)
            .map_err(failed)?;
        let watched = Arc::clone(&control);
        let mut input =
            ffi::open_input(io, dictionary(options), move || watched.interrupted()).map_err(failed)?;
        // MPEG-PS and FLV find their streams while they read.
        let informed = options.find_info || input.nb_streams() == 0;
        if informed {
            ffi::find_stream_info(&mut input).map_err(failed)?;
        }
        if let Some(error) = control.take_error() {
            return Err(error);
        }
        // A text file can pass for an obscure container without a stream.
        if input.nb_streams() == 0 {
            return Err(opening_failed(source, &control, Error::InvalidData));
        }
        let container = input.format().name().to_owned();
        let Some(stream) = best_stream(&input) else {
            return Err(VideoError::NoVideoStream { uri: source.uri().to_owned(), container });
        };
        ffi::keep_only(&mut input, stream);
        let wrap_from = options.wrap_from;
        Ok(Self { input, stream, source: Arc::clone(source), control, wrap_from, informed })
    }

    /// Reads packets until the parameters are known.
    pub(crate) fn find_info(&mut self) -> Result<(), VideoError> {
        if std::mem::replace(&mut self.informed, true) {
            return Ok(());
        }
        let result = ffi::find_stream_info(&mut self.input);
        match (self.control.take_error(), result) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(opening_failed(&self.source, &self.control, error)),
            (None, Ok(())) => Ok(()),
        }
    }

    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    pub(crate) fn uri(&self) -> &str {
        self.source.uri()
    }

    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    pub(crate) fn input(&self) -> &Input {
        &self.input
    }

    /// FFmpeg's name of the demuxer.
    pub(crate) fn container(&self) -> String {
        self.input.format().name().to_owned()
    }

    /// The video stream.
    pub(crate) fn stream(&self) -> Result<Stream<'_>, VideoError> {
        self.input.stream(self.stream).ok_or_else(|| VideoError::NoVideoStream {
            uri: self.source.uri().to_owned(),
            container: self.container(),
        })
    }

    /// What the decoder needs.
    pub(crate) fn parameters(&self) -> Result<codec::Parameters, VideoError> {
        Ok(self.stream()?.parameters())
    }

    /// Seconds per tick.
    pub(crate) fn tick(&self) -> Result<(i32, i32), VideoError> {
        let base = self.stream()?.time_base();
        Ok((base.numerator(), base.denominator()))
    }

    pub(crate) fn entry_count(&self) -> usize {
        ffi::entry_count(&self.input, self.stream)
    }

    pub(crate) fn entry(&self, index: usize) -> Option<Entry> {
        ffi::entry(&self.input, self.stream, index)
    }

    /// Goes elsewhere.
    pub(crate) fn seek(&mut self, to: SeekTo) -> Result<(), VideoError> {
        let result = ffi::seek(&mut self.input, self.stream, to);
        match (self.control.take_error(), result) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(self.broken(&format!("seeking failed: {error}"))),
            (None, Ok(())) => Ok(()),
        }
    }

    /// The next packet of the video stream; none at the end.
    pub(crate) fn read(&mut self) -> Result<Option<Packet>, VideoError> {
        let mut damaged = 0;
        loop {
            let mut packet = Packet::empty();
            let result = packet.read(&mut self.input);
            // FFmpeg hands out the part of a packet that arrived before it reports the error of the bytes.
            if let Some(error) = self.control.take_error() {
                return Err(error);
            }
            match result {
                Ok(()) if packet.stream() == self.stream => {
                    self.unwrap_times(&mut packet);
                    return Ok(Some(packet));
                }
                Ok(()) => {}
                Err(Error::Eof) => return Ok(None),
                Err(Error::InvalidData) if damaged < MOST_DAMAGED => damaged += 1,
                Err(error) => return Err(self.broken(&error.to_string())),
            }
        }
    }

    /// From now on all packets' times follow this one, whatever FFmpeg makes of a clock that wraps.
    pub(crate) fn set_wrap(&mut self, from: Option<i64>) {
        self.wrap_from = from;
    }

    fn unwrap_times(&self, packet: &mut Packet) {
        let Some(from) = self.wrap_from else { return };
        let unwrapped = |time: i64| from + (time - from).rem_euclid(MPEG_CLOCK);
        packet.set_pts(packet.pts().map(unwrapped));
        packet.set_dts(packet.dts().map(unwrapped));
    }

    /// An error about the bytes at hand.
    pub(crate) fn broken(&self, cause: &str) -> VideoError {
        VideoError::Broken {
            uri: self.source.uri().to_owned(),
            at: self.control.position().min(self.source.size()),
            time: String::new(),
            cause: cause.to_owned(),
        }
    }
}

fn dictionary(options: &DemuxOptions) -> Dictionary<'static> {
    let mut dictionary = Dictionary::new();
    if options.ignore_index {
        dictionary.set("fflags", "+ignidx");
    }
    // Parameters come from the first decoded frame; what is read here serves the clock.
    dictionary.set("probesize", "524288");
    dictionary.set("format_whitelist", CONTAINERS);
    // References to other files are never followed.
    dictionary.set("enable_drefs", "0");
    dictionary.set("protocol_whitelist", "");
    dictionary
}

/// The stream that `ffmpeg` itself would take: the largest, a declared default before others, never a cover picture.
fn best_stream(input: &Input) -> Option<usize> {
    input
        .streams()
        .filter(|stream| stream.parameters().medium() == media::Type::Video)
        .map(|stream| (stream.index(), ffi::shape(&stream)))
        .filter(|(_, shape)| !shape.attached_picture)
        .max_by_key(|(index, shape)| {
            let pixels = u64::from(shape.width) * u64::from(shape.height);
            (pixels + if shape.default { 5_000_000 } else { 0 }, std::cmp::Reverse(*index))
        })
        .map(|(index, _)| index)
}

fn opening_failed(source: &Source, control: &Control, error: Error) -> VideoError {
    control.take_error().unwrap_or_else(|| VideoError::NotAVideo {
        uri: source.uri().to_owned(),
        size: source.size(),
        at: control.position().min(source.size()),
        cause: error.to_string(),
    })
}
