//! What a video says of itself, gathered from container, stream and first frame.

use std::sync::Arc;

use ffmpeg_next::{color, format};

use crate::{
    Colour, IndexKind, KeyframeIndex, Probe, Ratio, VideoError,
    composition::track_end,
    convert::Display,
    demux::{DemuxOptions, Demuxer},
    ffi,
    first::FirstFrame,
    inner::{Clock, Layout},
    linear,
    meter::Call,
    open::Survey,
    orient::Orientation,
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
    (first, survey, call): (&FirstFrame, &Survey, &Arc<Call>),
) -> Result<i64, VideoError> {
    let last_known = index.keyframes.last().map_or(clock.start, |last| last.ticks).max(clock.start) + 1;
    let whole =
        ffi::container_duration(demuxer.input()).map(|microseconds| clock.span(microseconds as f64 * 1e-6));
    let declared = match layout {
        Layout::Samples => samples_end(demuxer, clock, survey)?,
        // A file that lost its cues lost its end too.
        Layout::Clusters { .. } if index.keyframes.len() > 1 => track_duration(demuxer, clock)?.or(whole),
        Layout::Linear if options.may_pass => {
            if demuxer.source().size() > linear::FREE_BYTES {
                call.scanned();
            }
            tail::last_packet(demuxer, first)?
        }
        // A recording to a pipe says a billion frames.
        Layout::Linear
            if demuxer.stream()?.frames().max(0).cast_unsigned() > demuxer.source().size() / 16 =>
        {
            None
        }
        Layout::Linear => whole.map(|length| clock.start.saturating_add(length)),
        // Of fragments, the header tells the header's own part only.
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

fn samples_end(demuxer: &Demuxer, clock: &Clock, survey: &Survey) -> Result<Option<i64>, VideoError> {
    let stream = demuxer.stream()?;
    let declared = Some(stream.duration()).filter(|length| *length > 0);
    let Some(mp4) = &survey.mp4 else {
        // AVI counts frames, whenever the first one is shown.
        return Ok(declared.map(|length| clock.start.saturating_add(length)));
    };
    let start = Some(stream.start_time()).filter(|start| *start != i64::MIN).unwrap_or(clock.start);
    let declared = declared.map(|length| start.saturating_add(length));
    let last = demuxer.entry_count().checked_sub(1).and_then(|number| demuxer.entry(number));
    let tables = u32::try_from(stream.id())
        .ok()
        .and_then(|track| track_end(&mp4.moov_body(), track))
        .filter(|end| end.samples == demuxer.entry_count() as u64);
    let shown = match (last, tables) {
        (Some(last), Some(end)) if !last.hidden => {
            Some(last.ticks.saturating_add(end.ahead + end.step.max(1)))
        }
        _ => None,
    };
    Ok(declared.max(shown))
}

/// Matroska's duration is that of the longest stream; FFmpeg and mkvmerge note each stream's own.
fn track_duration(demuxer: &Demuxer, clock: &Clock) -> Result<Option<i64>, VideoError> {
    let stream = demuxer.stream()?;
    let seconds = stream.metadata().get("DURATION").and_then(|text| {
        let mut parts = text.trim().splitn(3, ':').map(|part| part.parse::<f64>().ok());
        Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
    });
    Ok(seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0).map(|seconds| clock.span(seconds)))
}

/// Everything that `spectemp probe` prints.
pub(crate) fn probe(
    demuxer: &Demuxer,
    first: &FirstFrame,
    clock: &Clock,
    display: Display,
    (layout, kind, index): (Layout, IndexKind, &KeyframeIndex),
) -> Result<Probe, VideoError> {
    let (stream, source) = (demuxer.stream()?, demuxer.source());
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
