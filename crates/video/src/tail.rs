//! When the last frame ends, for containers that do not tell: the last packets' times.

use std::sync::Arc;

use crate::{
    VideoError,
    demux::{DemuxOptions, Demuxer},
    fetch::Pins,
    first::FirstFrame,
    inner::Layout,
    meter::Call,
    restart::{enter, last_entry},
    run::packet_time,
};

/// How far before the end reading begins, at first and at most.
const TAIL_BYTES: u64 = 256 << 10;
const MOST_TAIL_BYTES: u64 = 32 << 20;

/// End of the last frame in ticks; none where no packet tells. The demuxer stands elsewhere afterwards.
pub(crate) fn last_end(
    demuxer: &mut Demuxer,
    layout: Layout,
    options: &DemuxOptions,
    (first, call): (&FirstFrame, &Arc<Call>),
) -> Result<Option<i64>, VideoError> {
    let size = demuxer.source().size();
    let (mut before, mut tail) = (size, TAIL_BYTES);
    while tail <= MOST_TAIL_BYTES {
        let at = match layout {
            Layout::Stream => Some(size.saturating_sub(tail)),
            _ => last_entry(demuxer.source(), call, layout, before)?,
        };
        let Some(at) = at else { return Ok(None) };
        enter(demuxer, layout, at, (options, call, Arc::new(Pins::default())))?;
        if let Some(end) = last_packet(demuxer, first)? {
            return Ok(Some(end));
        }
        // The last fragment may be of another stream, or damaged: the one before it, then.
        (before, tail) = (at, tail * 4);
        if at == 0 {
            break;
        }
    }
    Ok(None)
}

/// Reads to the end: when the last packet's frame ends.
pub(crate) fn last_packet(demuxer: &mut Demuxer, first: &FirstFrame) -> Result<Option<i64>, VideoError> {
    let mut last: Option<i64> = None;
    loop {
        match demuxer.read() {
            Ok(Some(packet)) => {
                let length = if packet.duration() > 0 { packet.duration() } else { first.step.unwrap_or(1) };
                last = last.max(packet_time(&packet).map(|time| time + length));
            }
            Ok(None) => return Ok(last),
            // A cut-off end is no reason to give the video up.
            Err(VideoError::Broken { .. }) => return Ok(last),
            Err(error) => return Err(error),
        }
    }
}
