//! What a video says of itself, gathered from container, stream and first frame.

use std::sync::Arc;

use ffmpeg_next::{color, format};

use crate::{
    Colour, IndexKind, KeyframeIndex, Probe, Ratio, VideoError,
    convert::Display,
    demux::{DemuxOptions, Demuxer},
    ffi,
    first::FirstFrame,
    inner::{Clock, Layout},
    meter::Call,
    orient::Orientation,
    source::Source,
    tail,
};

/// How frames are shown.
pub(crate) fn display(demuxer: &Demuxer, first: &FirstFrame) -> Result<Display, VideoError> {
    let stream = demuxer.stream()?;
    let declared = ffi::shape(&stream).sample_aspect;
    let own = first.frame.aspect_ratio();
    // The container's word goes before the codec's, as FFmpeg does it.
    let aspect = [declared, (own.numerator(), own.denominator())]
        .into_iter()
        .find(|(num, den)| *num > 0 && *den > 0)
        .map_or(1.0, |(num, den)| f64::from(num) / f64::from(den));
    let orientation = ffi::display_matrix(&stream).and_then(|matrix| Orientation::from_matrix(&matrix));
    Ok(Display {
        aspect: if (0.01..=100.0).contains(&aspect) { aspect } else { 1.0 },
        orientation: orientation.unwrap_or(Orientation::UPRIGHT),
    })
}

/// When the last frame ends, in ticks.
pub(crate) fn end(
    demuxer: &mut Demuxer,
    (layout, options): (Layout, &DemuxOptions),
    clock: &Clock,
    index: &KeyframeIndex,
    (first, call): (&FirstFrame, &Arc<Call>),
) -> Result<i64, VideoError> {
    let (start_time, duration) = {
        let stream = demuxer.stream()?;
        (stream.start_time(), stream.duration())
    };
    let last_known = index.keyframes.last().map_or(clock.start, |last| last.ticks).max(clock.start) + 1;
    let known = |value: i64| value != i64::MIN && value > 0;
    let declared = match layout {
        // Fragments: what the header says is the header's own part.
        Layout::Samples if known(duration) => {
            let from = if start_time == i64::MIN { clock.start } else { start_time };
            Some(from.saturating_add(duration))
        }
        // A file that lost its cues lost its end too.
        Layout::Clusters { .. } if index.keyframes.len() > 1 => ffi::container_duration(demuxer.input())
            .map(|microseconds| clock.span(microseconds as f64 * 1e-6)),
        Layout::Linear => {
            let whole = ffi::container_duration(demuxer.input());
            whole.map(|microseconds| clock.start.saturating_add(clock.span(microseconds as f64 * 1e-6)))
        }
        _ => None,
    };
    match declared.filter(|end| *end >= last_known) {
        Some(end) => Ok(end),
        None if layout == Layout::Linear => Ok(last_known),
        None => {
            Ok(tail::last_end(demuxer, layout, options, (first, call))?.unwrap_or(last_known).max(last_known))
        }
    }
}

/// Everything that `spectemp probe` prints.
pub(crate) fn probe(
    demuxer: &Demuxer,
    first: &FirstFrame,
    clock: &Clock,
    display: Display,
    source: &Source,
    (layout, kind, index): (Layout, IndexKind, &KeyframeIndex),
) -> Result<Probe, VideoError> {
    let stream = demuxer.stream()?;
    let (frame, rate) = (&first.frame, stream.avg_frame_rate());
    let (width, height) = display.size(frame.width(), frame.height());
    let (mirrored, rotation) = display.orientation.parts();
    let mean = f64::from(rate.numerator()) / f64::from(rate.denominator());
    let own = first.step.map(|step| 1.0 / clock.seconds(step));
    let whole_table = (layout == Layout::Samples).then(|| demuxer.entry_count() as u64);
    let frames = u64::try_from(stream.frames()).ok().filter(|frames| *frames > 0);
    Ok(Probe {
        container: demuxer.container(),
        codec: codec_name(&stream),
        pixel_format: pixel_name(frame.format()),
        bits: bits(frame.format()),
        coded_width: frame.width(),
        coded_height: frame.height(),
        width,
        height,
        sample_aspect: aspect(display.aspect),
        rotation,
        mirrored,
        colour: colour(frame),
        fps: Some(mean).filter(|fps| fps.is_finite() && *fps > 0.0).or(own),
        duration_s: clock.since_start(clock.end).max(0.0),
        start_s: clock.seconds(clock.start),
        time_base: Ratio { num: i64::from(clock.tick_num), den: i64::from(clock.tick_den) },
        frames: frames.or(whole_table),
        index: kind,
        keyframes: index.keyframes.len() as u64,
        object_bytes: source.size(),
        etag: source.etag().map(str::to_owned),
    })
}

fn codec_name(stream: &format::stream::Stream<'_>) -> String {
    stream.parameters().id().name().to_owned()
}

fn pixel_name(format: format::Pixel) -> String {
    format.descriptor().map_or("unknown", |descriptor| descriptor.name()).to_owned()
}

fn bits(format: format::Pixel) -> u32 {
    ffi::component_bits(format)
}

fn colour(frame: &ffmpeg_next::frame::Video) -> Colour {
    let name = |name: Option<&'static str>| name.unwrap_or("unknown").to_owned();
    let range = match frame.color_range() {
        color::Range::MPEG => "tv",
        color::Range::JPEG => "pc",
        color::Range::Unspecified => "unknown",
    };
    Colour {
        matrix: name(frame.color_space().name()),
        range: range.to_owned(),
        primaries: name(frame.color_primaries().name()),
        transfer: name(frame.color_transfer_characteristic().name()),
    }
}

/// The aspect as a fraction with a denominator of at most 1000.
fn aspect(value: f64) -> Ratio {
    (1..=1000)
        .map(|den| Ratio { num: (value * den as f64).round() as i64, den })
        .find(|ratio| (ratio.value() - value).abs() < 1e-6)
        .unwrap_or(Ratio { num: (value * 1e6).round() as i64, den: 1_000_000 })
}
