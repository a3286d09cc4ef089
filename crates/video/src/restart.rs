//! Containers that can be entered in the middle: where the next place to enter lies, and how to enter there.
//!
//! A fragment of an MP4 and a cluster of a Matroska file stand for themselves once the header is known. FFmpeg is not
//! told to seek there (it would read everything in between, or needs an index), it is opened anew on a file in which
//! one box at the place of the first fragment or cluster covers all up to the wanted one. Offsets inside stay true.

use std::{ops::Range, sync::Arc};

use crate::{
    VideoError, boxes,
    demux::{DemuxOptions, Demuxer},
    ebml,
    fetch::Pins,
    ffi::SeekTo,
    inner::Layout,
    meter::Call,
    reader::Patch,
    source::Source,
};

/// A box that covers less has no room for its own head; no fragment or cluster is that short.
const LEAST_SKIP: u64 = 16;
/// A place to enter is not looked for farther than this.
const MOST_SEARCH_BYTES: u64 = 64 << 20;
/// First and longest look for a place to enter.
const LOOK_BYTES: u64 = 64 << 10;
const MOST_LOOK_BYTES: u64 = 4 << 20;

/// Brings a demuxer to a byte offset of its container, with blocks that are in memory.
pub(crate) fn enter(
    demuxer: &mut Demuxer,
    layout: Layout,
    offset: u64,
    (options, call, pins): (&DemuxOptions, &Arc<Call>, Arc<Pins>),
) -> Result<(), VideoError> {
    let patch = match layout {
        Layout::Stream => {
            demuxer.control().begin(call, pins);
            return demuxer.seek(SeekTo::Byte(offset));
        }
        Layout::Fragments { first } if offset >= first + LEAST_SKIP => {
            Some(Patch { at: first, bytes: boxes::skip_to(first..offset).into() })
        }
        Layout::Clusters { first } if offset >= first + LEAST_SKIP => {
            Some(Patch { at: first, bytes: ebml::skip_to(first..offset).into() })
        }
        _ => None,
    };
    let source = Arc::clone(demuxer.source());
    *demuxer = Demuxer::open(&source, call, &DemuxOptions { patch, pins, ..options.clone() })?;
    Ok(())
}

/// The first place in `within` at which a container can be entered. Blocks.
pub(crate) fn first_entry(
    source: &Source,
    call: &Call,
    layout: Layout,
    within: Range<u64>,
) -> Result<Option<u64>, VideoError> {
    if layout == Layout::Stream {
        return Ok((within.start < within.end).then_some(within.start));
    }
    let (mut at, mut look) = (within.start, LOOK_BYTES);
    let upto = within.end.min(within.start.saturating_add(MOST_SEARCH_BYTES));
    while at < upto {
        let window = at..(at + look).min(source.size());
        let pins = source.runtime.block_on(source.prefetch_range(window.clone(), call))?;
        let bytes = pins.bytes(window.clone());
        if let Some(found) = entry_in(layout, &bytes).map(|found| at + found as u64) {
            return Ok((found < within.end).then_some(found));
        }
        // A mark may lie across the border of two looks.
        at = window.end.saturating_sub(32).max(at + 1);
        if window.end == source.size() {
            break;
        }
        look = (look * 2).min(MOST_LOOK_BYTES);
    }
    Ok(None)
}

/// The last place before `end` at which a container can be entered. Blocks.
pub(crate) fn last_entry(
    source: &Source,
    call: &Call,
    layout: Layout,
    end: u64,
) -> Result<Option<u64>, VideoError> {
    let (mut from, mut look) = (end, 4 * LOOK_BYTES);
    while from > 0 {
        let start = from.saturating_sub(look);
        let mut found = None;
        let mut at = start;
        while let Some(entry) = first_entry(source, call, layout, at..from)? {
            found = Some(entry);
            at = entry + 1;
            if layout == Layout::Stream {
                break;
            }
        }
        if found.is_some() || look > 64 << 20 {
            return Ok(found);
        }
        (from, look) = (start, look * 4);
    }
    Ok(None)
}

fn entry_in(layout: Layout, bytes: &[u8]) -> Option<usize> {
    match layout {
        Layout::Fragments { .. } => boxes::find_moof(bytes),
        Layout::Clusters { .. } => ebml::find_cluster(bytes),
        _ => None,
    }
}
