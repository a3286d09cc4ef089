//! Opening: what container it is, where its index lies, when the first frame is shown.
//!
//! The way of the requests: one for the first bytes; one or two for an index elsewhere (see `boxes`, `ebml`); the first
//! frame lies in the first bytes in most files. With a record of the same version: one block, to see that it is the
//! same version.

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    BLOCK_BYTES, IndexKind, Keyframe, KeyframeIndex, OpenOptions, Probe, VideoError, VideoObject,
    VideoRecord,
    boxes::{self, Mp4},
    convert::Display,
    demux::{DemuxOptions, Demuxer},
    ebml::{self, Matroska},
    first::{FirstFrame, first_frame},
    inner::{Clock, Inner, Lanes, Layout},
    linear,
    meter::Call,
    orient::Orientation,
    probing, record,
    source::Source,
};

/// What the survey of the first bytes found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    pub(crate) mp4: Option<Mp4>,
    pub(crate) matroska: Option<Matroska>,
}

/// Opens an object.
pub(crate) async fn open(
    object: VideoObject,
    options: OpenOptions,
    known: Option<VideoRecord>,
) -> Result<Arc<Inner>, VideoError> {
    let call = Call::new(CancellationToken::new());
    let known = known.filter(|record| record.version == VideoRecord::VERSION && !record.header.is_empty());
    let first_bytes = if known.is_some() { BLOCK_BYTES } else { Source::PROBE_BYTES };
    let source = Arc::new(Source::open(object, &options, &call, first_bytes).await?);
    let inner = match known.filter(|record| record.is_of(&source)) {
        Some(record) => from_record(source, options, record)?,
        None => {
            let survey = survey(&source, &call).await?;
            let (source, options, call) = (Arc::clone(&source), options, Arc::clone(&call));
            blocking(source.uri().to_owned(), move || inspect(source, options, &survey, &call)).await?
        }
    };
    inner.add(call.figures());
    Ok(Arc::new(inner))
}

/// Runs what may wait for FFmpeg on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    uri: String,
    work: impl FnOnce() -> Result<T, VideoError> + Send + 'static,
) -> Result<T, VideoError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(VideoError::Resources { uri, cause: format!("a reading thread ended: {error}") })
    })
}

async fn survey(source: &Source, call: &Call) -> Result<Survey, VideoError> {
    let mp4 = boxes::survey(source, call).await?;
    let matroska = if mp4.is_none() { ebml::survey(source, call).await? } else { None };
    Ok(Survey { mp4, matroska })
}

fn from_record(source: Arc<Source>, options: OpenOptions, record: VideoRecord) -> Result<Inner, VideoError> {
    let header = record::unpack(&record.header, source.uri())?;
    let demux = DemuxOptions {
        ignore_index: matches!(record.layout, Layout::Fragments { .. }),
        find_info: needs_info(&record.probe.container),
        header: Arc::new(header),
        wrap_from: (record.layout == Layout::Stream).then(|| wrap_from(&record.clock)),
        ..DemuxOptions::default()
    };
    let display = Display {
        aspect: record.probe.sample_aspect.value(),
        orientation: Orientation::from_parts(record.probe.mirrored, record.probe.rotation),
    };
    Ok(assemble(
        source,
        options,
        Parts {
            layout: record.layout,
            demux,
            clock: record.clock,
            display,
            probe: record.probe,
            index: record.index,
        },
    ))
}

/// What opening found.
struct Parts {
    layout: Layout,
    demux: DemuxOptions,
    clock: Clock,
    display: Display,
    probe: Probe,
    index: KeyframeIndex,
}

fn assemble(source: Arc<Source>, options: OpenOptions, parts: Parts) -> Inner {
    Inner {
        lanes: Lanes::new(options.decode_threads),
        window: Semaphore::new((options.window_bytes >> 10).clamp(1, Semaphore::MAX_PERMITS)),
        source,
        options,
        layout: parts.layout,
        demux: parts.demux,
        clock: parts.clock,
        display: parts.display,
        probe: parts.probe,
        index: Mutex::new(parts.index),
        found: Mutex::default(),
        total: Mutex::default(),
    }
}

/// A minute before the first frame: times a little before it are no wrapped ones.
fn wrap_from(clock: &Clock) -> i64 {
    clock.start.saturating_sub(clock.span(60.0))
}

/// Containers whose headers do not tell what packets need.
fn needs_info(container: &str) -> bool {
    !["mov", "matroska", "mpegts"].iter().any(|name| container.contains(name))
}

/// Opens the container, decodes the first frame, builds the index. Blocks.
fn inspect(
    source: Arc<Source>,
    options: OpenOptions,
    survey: &Survey,
    call: &Arc<Call>,
) -> Result<Inner, VideoError> {
    let fragmented = survey.mp4.as_ref().is_some_and(|mp4| mp4.fragmented);
    let may_pass = options.allow_scan || source.size() <= linear::FREE_BYTES;
    let mut demux = DemuxOptions { ignore_index: fragmented, may_pass, ..DemuxOptions::default() };
    let surveyed = survey.mp4.as_ref().map_or_else(Arc::default, |mp4| Arc::clone(&mp4.index));
    let mut demuxer = Demuxer::open(&source, call, &DemuxOptions { pins: surveyed, ..demux.clone() })
        .map_err(|error| explained(error, survey))?;
    // An AVI without an index gets rows for what is read of it: only those of the header count.
    let has_table = demuxer.entry_count() > 0;
    if needs_info(&demuxer.container()) {
        demux.find_info = true;
        demuxer.find_info()?;
    }
    demux.header = Arc::new(demuxer.control().noted_blocks());
    let layout = layout(&demuxer, survey, has_table);
    let first = first_frame(&mut demuxer, call)?;
    let tick = demuxer.tick()?;
    let delay = match (first.packet_pts, first.packet_dts) {
        (Some(pts), Some(dts)) => pts - dts,
        _ => 0,
    };
    let mut clock = Clock {
        tick_num: tick.0,
        tick_den: tick.1.max(1),
        start: first.shown_at,
        end: first.shown_at,
        delay,
    };
    if layout == Layout::Stream {
        demux.wrap_from = Some(wrap_from(&clock));
        demuxer.set_wrap(demux.wrap_from);
    }
    let index = index(&demuxer, layout, survey, &first, &clock);
    clock.end = probing::end(&mut demuxer, (layout, &demux), &clock, &index, (&first, survey, call))?;
    let display = probing::display(&demuxer, &first)?;
    let kind = index_kind(layout, &index);
    let probe = probing::probe(&demuxer, &first, &clock, display, (layout, kind, &index))?;
    let inner = assemble(source, options, Parts { layout, demux, clock, display, probe, index });
    inner.lanes.give(demuxer);
    Ok(inner)
}

/// A cut-off MP4 has no index: say so instead of FFmpeg's "invalid data".
fn explained(error: VideoError, survey: &Survey) -> VideoError {
    let cut = survey.mp4.as_ref().and_then(|mp4| mp4.cut.clone());
    match (error, cut) {
        (VideoError::NotAVideo { uri, size, at, .. }, Some(cause)) => {
            VideoError::NotAVideo { uri, size, at, cause }
        }
        (VideoError::NotAVideo { uri, size, at, cause }, None)
            if survey.mp4.as_ref().is_some_and(|mp4| mp4.moov.is_none()) =>
        {
            let cause = format!("the MP4 has no index (moov box): {cause}");
            VideoError::NotAVideo { uri, size, at, cause }
        }
        (other, _) => other,
    }
}

fn layout(demuxer: &Demuxer, survey: &Survey, has_table: bool) -> Layout {
    let container = demuxer.container();
    if let Some(mp4) = &survey.mp4
        && let (true, Some(first)) = (mp4.fragmented, mp4.first_moof)
    {
        return Layout::Fragments { first };
    }
    if let Some(matroska) = &survey.matroska {
        return Layout::Clusters { first: matroska.first_cluster };
    }
    if container == "mpegts" || container == "mpeg" {
        return Layout::Stream;
    }
    let tells_all = container == "avi" || container.contains("mov");
    if has_table && tells_all { Layout::Samples } else { Layout::Linear }
}

fn index(
    demuxer: &Demuxer,
    layout: Layout,
    survey: &Survey,
    first: &FirstFrame,
    clock: &Clock,
) -> KeyframeIndex {
    let keyframes = match layout {
        Layout::Samples => samples(demuxer, clock),
        Layout::Clusters { .. } => {
            survey.matroska.as_ref().map_or_else(Vec::new, |found| cues(demuxer, found))
        }
        Layout::Fragments { .. } => {
            survey.mp4.as_ref().map_or_else(Vec::new, |mp4| fragments(mp4, first, clock))
        }
        Layout::Stream | Layout::Linear => Vec::new(),
    };
    let mut index = KeyframeIndex { keyframes };
    if index.keyframes.is_empty() {
        let offset = match layout {
            Layout::Fragments { first } | Layout::Clusters { first } => first,
            Layout::Stream => first.packet_at.unwrap_or(0),
            Layout::Samples | Layout::Linear => 0,
        };
        let ticks = first.packet_pts.or(first.packet_dts).unwrap_or(first.shown_at);
        index.learn(Keyframe { ticks, offset, size: first.packet_bytes, next_known: false });
    }
    index
}

fn samples(demuxer: &Demuxer, clock: &Clock) -> Vec<Keyframe> {
    let rows = (0..demuxer.entry_count()).filter_map(|number| demuxer.entry(number));
    rows.filter(|row| row.key)
        .map(|row| Keyframe {
            ticks: row.ticks.saturating_add(clock.delay),
            offset: row.offset,
            size: row.size,
            next_known: true,
        })
        .collect()
}

/// The fragments of a segment index. Its clock is the track's own: the first fragment is put where the first frame is.
fn fragments(mp4: &Mp4, first: &FirstFrame, clock: &Clock) -> Vec<Keyframe> {
    let begin = first.packet_pts.unwrap_or(first.shown_at);
    let Some(origin) = mp4.fragments.first().map(|fragment| fragment.time) else { return Vec::new() };
    let fragments = mp4.fragments.iter().map(|fragment| {
        let seconds = fragment.time.saturating_sub(origin) as f64 / f64::from(fragment.scale);
        Keyframe {
            ticks: begin.saturating_add(clock.span(seconds + 1e-9)),
            offset: fragment.at,
            size: 0,
            next_known: true,
        }
    });
    fragments.collect()
}

/// Cues of the video track; those that start a cluster stand for its start.
fn cues(demuxer: &Demuxer, found: &Matroska) -> Vec<Keyframe> {
    let Ok(stream) = demuxer.stream() else { return Vec::new() };
    let tracks: std::collections::BTreeSet<u64> = found.cues.iter().map(|cue| cue.track).collect();
    let own = u64::try_from(stream.id()).ok().filter(|id| tracks.contains(id)).or_else(|| {
        // FFmpeg does not hand track numbers on; they count from one in the order of the streams.
        Some(stream.index() as u64 + 1).filter(|number| tracks.contains(number))
    });
    let mut keyframes: Vec<Keyframe> = found
        .cues
        .iter()
        .filter(|cue| Some(cue.track) == own)
        .filter_map(|cue| {
            let ticks = i64::try_from(cue.time).ok()?;
            Some(Keyframe { ticks, offset: cue.cluster, size: 0, next_known: true })
        })
        .collect();
    keyframes.sort_by_key(|keyframe| keyframe.ticks);
    keyframes.dedup_by_key(|keyframe| keyframe.ticks);
    keyframes
}

fn index_kind(layout: Layout, index: &KeyframeIndex) -> IndexKind {
    match layout {
        Layout::Samples => IndexKind::Container,
        Layout::Linear => IndexKind::Scanned,
        _ if index.keyframes.iter().any(|keyframe| keyframe.next_known) => IndexKind::Container,
        _ => IndexKind::Bisected,
    }
}
