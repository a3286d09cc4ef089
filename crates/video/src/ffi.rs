//! The few things of FFmpeg that `ffmpeg-next` has no safe call for: opening without reading packets, the demuxer's
//! index, seeking in one stream, and swscale with the stream's own colour matrix. All unsafe code of reading is here.
#![expect(unsafe_code, reason = "FFmpeg's index, seek and colour calls have no safe wrapper in ffmpeg-next")]

use std::ptr;

use ffmpeg_next::{
    Dictionary, Error, codec, ffi, format,
    format::context::{Input, StreamIo},
    frame, packet,
    util::interrupt,
};

/// A row of a demuxer's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) ticks: i64,
    pub(crate) offset: u64,
    pub(crate) size: u32,
    pub(crate) key: bool,
    /// An edit list hides it.
    pub(crate) hidden: bool,
}

/// Fills FFmpeg's table of error texts, and tells it to be silent: what it has to say comes back as an error.
fn set_up() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // Registering cannot fail in FFmpeg 5; were it to, texts would be missing, nothing else.
        let _ = ffmpeg_next::init();
        ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Fatal);
    });
}

/// Opens a container. Unlike `format::input_from_stream` it reads no packets: where header and index are in memory it
/// needs no other byte.
pub(crate) fn open_input(
    mut io: StreamIo,
    options: Dictionary,
    interrupted: impl FnMut() -> bool + Send + 'static,
) -> Result<Input, Error> {
    set_up();
    let interrupt = interrupt::new(Box::new(interrupted));
    // SAFETY: the context is freed by avformat_open_input where it fails, else by `Input`, which also owns `io` and the
    // interrupt's closure and drops them after the context. `options` is given up to FFmpeg and taken back.
    unsafe {
        let mut context = ffi::avformat_alloc_context();
        if context.is_null() {
            return Err(Error::Other { errno: ffi::ENOMEM });
        }
        (*context).interrupt_callback = interrupt.interrupt;
        (*context).pb = io.as_mut_ptr();
        (*context).flags |= ffi::AVFMT_FLAG_CUSTOM_IO;
        let mut options = options.disown();
        let result = ffi::avformat_open_input(&mut context, ptr::null(), ptr::null_mut(), &mut options);
        drop(Dictionary::own(options));
        if result < 0 {
            return Err(Error::from(result));
        }
        Ok(Input::wrap_with_custom_io_and_interrupt(context, io, interrupt.guard))
    }
}

/// Reads packets until the streams' parameters are known.
pub(crate) fn find_stream_info(input: &mut Input) -> Result<(), Error> {
    // SAFETY: the context is open and borrowed for the call.
    match unsafe { ffi::avformat_find_stream_info(input.as_mut_ptr(), ptr::null_mut()) } {
        result if result < 0 => Err(Error::from(result)),
        _ => Ok(()),
    }
}

/// Lets the demuxer skip the packets of all other streams.
pub(crate) fn keep_only(input: &mut Input, stream: usize) {
    // SAFETY: the pointers of the first `nb_streams` streams of an open context are valid.
    unsafe {
        let context = input.as_mut_ptr();
        for index in 0..(*context).nb_streams as usize {
            let discard = if index == stream {
                ffi::AVDiscard::AVDISCARD_DEFAULT
            } else {
                ffi::AVDiscard::AVDISCARD_ALL
            };
            (**(*context).streams.add(index)).discard = discard;
        }
    }
}

/// What a stream's parameters say before anything is decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) sample_aspect: (i32, i32),
    pub(crate) default: bool,
    pub(crate) attached_picture: bool,
}

/// The shape of a stream.
pub(crate) fn shape(stream: &format::stream::Stream<'_>) -> Shape {
    // SAFETY: the stream borrows its open context; codecpar is never null for a demuxer's stream.
    unsafe {
        let raw = stream.as_ptr();
        let parameters = (*raw).codecpar;
        let aspect = match (*raw).sample_aspect_ratio {
            aspect if aspect.num > 0 && aspect.den > 0 => aspect,
            _ => (*parameters).sample_aspect_ratio,
        };
        Shape {
            width: u32::try_from((*parameters).width).unwrap_or(0),
            height: u32::try_from((*parameters).height).unwrap_or(0),
            sample_aspect: (aspect.num, aspect.den),
            default: (*raw).disposition & ffi::AV_DISPOSITION_DEFAULT != 0,
            attached_picture: (*raw).disposition & ffi::AV_DISPOSITION_ATTACHED_PIC != 0,
        }
    }
}

/// The container's duration in microseconds, where it tells one.
pub(crate) fn container_duration(input: &Input) -> Option<i64> {
    // SAFETY: the context is open.
    let duration = unsafe { (*input.as_ptr()).duration };
    (duration != ffi::AV_NOPTS_VALUE && duration > 0).then_some(duration)
}

/// Rows of a stream's index.
pub(crate) fn entry_count(input: &Input, stream: usize) -> usize {
    // SAFETY: `stream` comes from this context; the call only reads.
    let count = unsafe { ffi::avformat_index_get_entries_count(*(*input.as_ptr()).streams.add(stream)) };
    usize::try_from(count).unwrap_or(0)
}

/// A row of a stream's index.
pub(crate) fn entry(input: &Input, stream: usize, index: usize) -> Option<Entry> {
    let index = i32::try_from(index).ok()?;
    // SAFETY: `stream` comes from this context; the row is copied before anything else touches the context.
    unsafe {
        let row = ffi::avformat_index_get_entry(*(*input.as_ptr()).streams.add(stream), index).as_ref()?;
        Some(Entry {
            ticks: row.timestamp,
            offset: u64::try_from(row.pos).unwrap_or(u64::MAX),
            size: u32::try_from(row.size()).unwrap_or(0),
            key: row.flags() & ffi::AVINDEX_KEYFRAME != 0,
            hidden: row.flags() & ffi::AVINDEX_DISCARD_FRAME != 0,
        })
    }
}

/// Where a seek goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeekTo {
    /// The last keyframe at or before a time in ticks.
    Ticks(i64),
    /// A byte offset.
    Byte(u64),
}

/// Seeks in one stream.
pub(crate) fn seek(input: &mut Input, stream: usize, to: SeekTo) -> Result<(), Error> {
    let (target, flags) = match to {
        SeekTo::Ticks(ticks) => (ticks, ffi::AVSEEK_FLAG_BACKWARD),
        SeekTo::Byte(offset) => (i64::try_from(offset).unwrap_or(i64::MAX), ffi::AVSEEK_FLAG_BYTE),
    };
    // SAFETY: the context is open and borrowed for the call.
    unsafe {
        // An error or end that an earlier read met must not stop this one.
        let io = (*input.as_mut_ptr()).pb;
        if !io.is_null() {
            (*io).error = 0;
            (*io).eof_reached = 0;
        }
        let stream = i32::try_from(stream).unwrap_or(-1);
        match ffi::av_seek_frame(input.as_mut_ptr(), stream, target, flags) {
            result if result < 0 => Err(Error::from(result)),
            _ => Ok(()),
        }
    }
}

/// The nine numbers of a stream's display matrix.
pub(crate) fn display_matrix(stream: &format::stream::Stream<'_>) -> Option<[i32; 9]> {
    let data = stream.side_data().find(|data| data.kind() == packet::side_data::Type::DisplayMatrix)?;
    let bytes = data.data();
    if bytes.len() < 36 {
        return None;
    }
    let mut matrix = [0; 9];
    for (value, four) in matrix.iter_mut().zip(bytes.chunks_exact(4)) {
        *value = i32::from_ne_bytes(four.try_into().ok()?);
    }
    Some(matrix)
}

/// Bits per sample of a pixel format.
pub(crate) fn component_bits(format: format::Pixel) -> u32 {
    // SAFETY: the descriptor is a constant table row, or null for an unknown format.
    let depth = unsafe {
        ffi::av_pix_fmt_desc_get(ffi::AVPixelFormat::from(format)).as_ref().map(|row| row.comp[0].depth)
    };
    depth.and_then(|depth| u32::try_from(depth).ok()).unwrap_or(8)
}

/// Makes the H.264 decoder wait for as many frames as the level allows where the stream does not say how many it
/// reorders: without it, it guesses, and drops frames while it learns.
pub(crate) fn be_strict(context: &mut codec::Context) {
    // SAFETY: the context is not opened yet and borrowed for the call.
    unsafe {
        if (*context.as_ptr()).codec_id == ffi::AVCodecID::AV_CODEC_ID_H264 {
            (*context.as_mut_ptr()).strict_std_compliance = ffi::FF_COMPLIANCE_STRICT;
        }
    }
}

/// A conversion from one picture layout to 8 bit RGB.
pub(crate) struct ToRgb {
    context: *mut ffi::SwsContext,
    source: Layout,
    target: (u32, u32),
}

/// What a conversion depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) format: format::Pixel,
    pub(crate) width: u32,
    pub(crate) height: u32,
    matrix: i32,
    range: i32,
}

impl Layout {
    /// The layout of a decoded frame.
    pub(crate) fn of(frame: &frame::Video) -> Self {
        // SAFETY: the frame is valid; only numbers are read.
        let (matrix, range) =
            unsafe { ((*frame.as_ptr()).colorspace as i32, (*frame.as_ptr()).color_range as i32) };
        Self { format: frame.format(), width: frame.width(), height: frame.height(), matrix, range }
    }
}

// SAFETY: the context has no tie to a thread and is used through `&mut self` only.
unsafe impl Send for ToRgb {}

impl ToRgb {
    /// Prepares a conversion as FFmpeg's `scale` filter does: bicubic, the declared matrix (601 where none is
    /// declared), the declared range, chroma rows of 4:2:0 halfway between luma rows.
    pub(crate) fn new(source: Layout, target: (u32, u32)) -> Result<Self, Error> {
        // SAFETY: the context is freed on every way out; option names are C strings; tables come from swscale itself.
        unsafe {
            let context = ffi::sws_alloc_context();
            if context.is_null() {
                return Err(Error::Other { errno: ffi::ENOMEM });
            }
            let this = Self { context, source, target };
            let pixel = |format: format::Pixel| ffi::AVPixelFormat::from(format) as i64;
            let set = |name: &std::ffi::CStr, value: i64| {
                ffi::av_opt_set_int(context.cast(), name.as_ptr(), value, 0);
            };
            set(c"srcw", i64::from(source.width));
            set(c"srch", i64::from(source.height));
            set(c"src_format", pixel(source.format));
            set(c"dstw", i64::from(target.0));
            set(c"dsth", i64::from(target.1));
            set(c"dst_format", pixel(format::Pixel::RGB24));
            set(c"sws_flags", i64::from(ffi::SWS_BICUBIC));
            let chroma_rows = source.format.descriptor().map_or(0, |descriptor| descriptor.log2_chroma_h());
            if chroma_rows == 1 {
                set(c"src_v_chr_pos", 128);
            }
            if ffi::sws_init_context(context, ptr::null_mut(), ptr::null_mut()) < 0 {
                return Err(Error::InvalidData);
            }
            this.set_colour();
            Ok(this)
        }
    }

    /// Hands matrix and range over. Layouts that have none (RGB, grey) are left as they are.
    fn set_colour(&self) {
        let (mut inverse, mut table) = (ptr::null_mut(), ptr::null_mut());
        let (mut from_full, mut to_full, mut brightness, mut contrast, mut saturation) = (0, 0, 0, 0, 0);
        // SAFETY: the context is initialised; all pointers live until the calls return.
        unsafe {
            let known = ffi::sws_getColorspaceDetails(
                self.context,
                &mut inverse,
                &mut from_full,
                &mut table,
                &mut to_full,
                &mut brightness,
                &mut contrast,
                &mut saturation,
            );
            if known < 0 {
                return;
            }
            match self.source.range {
                range if range == ffi::AVColorRange::AVCOL_RANGE_JPEG as i32 => from_full = 1,
                range if range == ffi::AVColorRange::AVCOL_RANGE_MPEG as i32 => from_full = 0,
                _ => {}
            }
            let coefficients = ffi::sws_getCoefficients(self.source.matrix);
            ffi::sws_setColorspaceDetails(
                self.context,
                coefficients,
                from_full,
                coefficients,
                to_full,
                brightness,
                contrast,
                saturation,
            );
        }
    }

    /// True where this conversion fits.
    pub(crate) fn fits(&self, source: Layout, target: (u32, u32)) -> bool {
        self.source == source && self.target == target
    }

    /// Converts a frame to rows of RGB without padding.
    pub(crate) fn run(&mut self, frame: &frame::Video) -> Result<Vec<u8>, Error> {
        if Layout::of(frame) != self.source {
            return Err(Error::InputChanged);
        }
        let (width, height) = (self.target.0 as usize, self.target.1 as usize);
        // swscale's vector code may write beyond a row's end: rows have room, and are packed afterwards.
        let stride = (width * 3).next_multiple_of(64);
        let mut rows = vec![0u8; stride * height + 64];
        let targets = [rows.as_mut_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut()];
        let strides = [i32::try_from(stride).map_err(|_| Error::InvalidData)?, 0, 0, 0];
        // SAFETY: the frame has the layout that the context was made for; the target holds `height` rows of `stride`.
        let done = unsafe {
            let source = frame.as_ptr();
            ffi::sws_scale(
                self.context,
                (*source).data.as_ptr().cast(),
                (*source).linesize.as_ptr(),
                0,
                i32::try_from(self.source.height).map_err(|_| Error::InvalidData)?,
                targets.as_ptr(),
                strides.as_ptr(),
            )
        };
        if done < 0 {
            return Err(Error::from(done));
        }
        let mut packed = Vec::with_capacity(width * 3 * height);
        for row in rows.chunks_exact(stride).take(height) {
            packed.extend_from_slice(&row[..width * 3]);
        }
        Ok(packed)
    }
}

impl Drop for ToRgb {
    fn drop(&mut self) {
        // SAFETY: the context was allocated by swscale and is freed once.
        unsafe { ffi::sws_freeContext(self.context) }
    }
}
