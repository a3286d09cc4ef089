//! Which keyframe a run begins at, and which bytes it will read: they are fetched before it begins.

use std::ops::Range;

use crate::{
    Keyframe, KeyframeIndex, VideoError,
    demux::Demuxer,
    gate::Target,
    inner::{Inner, Layout, Start},
    run::Goal,
};

/// What is fetched of a keyframe of unknown size at first.
const UNKNOWN_KEYFRAME_BYTES: u64 = 128 << 10;
/// What is fetched beyond the estimated place of a frame.
const MARGIN_BYTES: u64 = 128 << 10;
/// What is fetched at first of a group of unknown length.
const UNKNOWN_GROUP_BYTES: u64 = 1 << 20;

impl Inner {
    /// Where a run that begins at a keyframe begins.
    pub(crate) fn start(&self, index: &KeyframeIndex, number: usize) -> Start {
        let Some(keyframe) = index.keyframes.get(number) else { return Start::Begin };
        match self.layout {
            Layout::Samples => {
                // FFmpeg goes one group back for a leading keyframe of an open group, unless it is asked for a time at
                // which the keyframe itself is shown; and one on where the next one is decoded before that time.
                let next = index.keyframes.get(number + 1).map(|next| next.ticks - self.clock.delay - 1);
                let decoded = keyframe.ticks - self.clock.delay;
                Start::Seek(next.map_or(keyframe.ticks, |next| keyframe.ticks.min(next)).max(decoded))
            }
            Layout::Linear => Start::Begin,
            _ => Start::At(keyframe.offset),
        }
    }

    /// The bytes that a run from a keyframe reads.
    ///
    /// # Errors
    /// Where the index points beyond the object.
    pub(crate) fn spans(
        &self,
        demuxer: &Demuxer,
        index: &KeyframeIndex,
        number: usize,
        goal: &Goal,
    ) -> Result<Vec<Range<u64>>, VideoError> {
        let Some(keyframe) = index.keyframes.get(number) else { return Ok(Vec::new()) };
        let spans: Vec<Range<u64>> = match (self.layout, goal) {
            (Layout::Samples, Goal::Keyframe { .. }) => {
                std::iter::once(keyframe.offset..keyframe.offset.saturating_add(u64::from(keyframe.size)))
                    .collect()
            }
            (Layout::Samples, Goal::Frames(targets)) => self.sample_spans(demuxer, keyframe, targets),
            (Layout::Linear, _) => Vec::new(),
            (_, Goal::Keyframe { .. }) => {
                std::iter::once(keyframe.offset..keyframe.offset + keyframe_bytes(keyframe)).collect()
            }
            (_, Goal::Frames(targets)) => {
                std::iter::once(self.estimated_span(index, number, targets)).collect()
            }
        };
        let size = self.source.size();
        match spans.iter().find(|span| span.end > size) {
            Some(span) if self.layout == Layout::Samples => Err(self.broken(
                span.start,
                keyframe.ticks,
                format!("the index points to byte {}, but the object has {size}: it is cut off", span.end),
            )),
            _ => Ok(spans.into_iter().map(|span| span.start..span.end.min(size)).collect()),
        }
    }

    /// The samples from a keyframe up to the last one that is decoded at or before the last target.
    fn sample_spans(&self, demuxer: &Demuxer, keyframe: &Keyframe, targets: &[Target]) -> Vec<Range<u64>> {
        let decoded = keyframe.ticks - self.clock.delay;
        let last = targets.iter().map(|target| target.ticks).max().unwrap_or(keyframe.ticks);
        let (mut from, mut upto) = (0, demuxer.entry_count());
        while from < upto {
            let middle = usize::midpoint(from, upto);
            if demuxer.entry(middle).is_some_and(|row| row.ticks < decoded) {
                from = middle + 1;
            } else {
                upto = middle;
            }
        }
        let mut spans: Vec<Range<u64>> = Vec::new();
        for number in from..demuxer.entry_count() {
            let Some(row) = demuxer.entry(number) else { break };
            if row.ticks > last && !spans.is_empty() {
                break;
            }
            let end = row.offset.saturating_add(u64::from(row.size));
            match spans.last_mut() {
                Some(span) if span.end == row.offset => span.end = end,
                _ => spans.push(row.offset..end),
            }
        }
        spans
    }

    /// A share of the group's bytes, as the targets' times are a share of its time.
    fn estimated_span(&self, index: &KeyframeIndex, number: usize, targets: &[Target]) -> Range<u64> {
        let keyframe = &index.keyframes[number];
        let last = targets.iter().map(|target| target.ticks).max().unwrap_or(keyframe.ticks);
        let next = index.keyframes.get(number + 1).filter(|_| keyframe.next_known);
        let Some(next) = next.filter(|next| next.ticks > keyframe.ticks && next.offset > keyframe.offset)
        else {
            return keyframe.offset..keyframe.offset + UNKNOWN_GROUP_BYTES;
        };
        let share = last.saturating_sub(keyframe.ticks) as f64 / (next.ticks - keyframe.ticks) as f64;
        let bytes = (next.offset - keyframe.offset) as f64 * share.clamp(0.0, 1.0);
        let upto = keyframe.offset + bytes as u64 + keyframe_bytes(keyframe) + MARGIN_BYTES;
        keyframe.offset..upto.min(next.offset + MARGIN_BYTES)
    }
}

fn keyframe_bytes(keyframe: &Keyframe) -> u64 {
    match keyframe.size {
        0 => UNKNOWN_KEYFRAME_BYTES,
        // Headers of packets lie in between.
        size => u64::from(size) + u64::from(size) / 16 + (16 << 10),
    }
}
