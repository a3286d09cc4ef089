//! What the calls on one video share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use spectemp_types::IoFigures;
use tokio::sync::Semaphore;

use crate::{
    KeyframeIndex, OpenOptions, Probe, VideoError,
    convert::Display,
    demux::{DemuxOptions, Demuxer},
    fetch::Pins,
    ffi::SeekTo,
    meter::Call,
    restart::enter,
    source::Source,
};

/// How a demuxer gets to a keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// FFmpeg has a table of all samples (MP4, MOV, AVI).
    Samples,
    /// Fragmented MP4: opened anew at a fragment.
    Fragments {
        /// Where the first fragment begins.
        first: u64,
    },
    /// Matroska: opened anew at a cluster.
    Clusters {
        /// Where the first cluster begins.
        first: u64,
    },
    /// MPEG-TS and MPEG-PS: can be read from any byte.
    Stream,
    /// Can only be read from the start.
    Linear,
}

/// The clock of a video, in ticks of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Seconds per tick, above the line.
    pub tick_num: i32,
    /// Below the line.
    pub tick_den: i32,
    /// When the first displayed frame is shown.
    pub start: i64,
    /// When the last frame ends, as far as the container tells.
    pub end: i64,
    /// Presentation minus decoding time of the first keyframe.
    pub delay: i64,
}

impl Clock {
    /// Seconds of a tick count on the container's own clock.
    pub(crate) fn seconds(&self, ticks: i64) -> f64 {
        ticks as f64 * f64::from(self.tick_num) / f64::from(self.tick_den)
    }

    /// Seconds from the first displayed frame.
    pub(crate) fn since_start(&self, ticks: i64) -> f64 {
        self.seconds(ticks.saturating_sub(self.start))
    }

    /// The tick at or before a time from the first displayed frame. Times that were printed with microseconds come
    /// back as the tick they were printed from.
    pub(crate) fn ticks(&self, seconds: f64) -> i64 {
        let ticks = (seconds + 1e-6) * f64::from(self.tick_den) / f64::from(self.tick_num);
        self.start.saturating_add(ticks.floor() as i64)
    }

    /// Ticks in a span of seconds.
    pub(crate) fn span(&self, seconds: f64) -> i64 {
        (seconds * f64::from(self.tick_den) / f64::from(self.tick_num) + 1e-6).floor() as i64
    }
}

/// Where a run of decoding begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the keyframe that FFmpeg finds for a time.
    Seek(i64),
    /// At a byte.
    At(u64),
    /// At the first byte.
    Begin,
}

/// A frame that was found for a wanted time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) shown_at: i64,
    pub(crate) key: bool,
}

/// What was asked: a time, and the tolerance of keyframe mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    pub(crate) ticks: i64,
    pub(crate) tolerance: Option<i64>,
}

/// See the module.
pub(crate) struct Inner {
    pub(crate) source: Arc<Source>,
    pub(crate) options: OpenOptions,
    pub(crate) layout: Layout,
    pub(crate) demux: DemuxOptions,
    pub(crate) clock: Clock,
    pub(crate) display: Display,
    pub(crate) probe: Probe,
    pub(crate) index: Mutex<KeyframeIndex>,
    pub(crate) lanes: Lanes,
    pub(crate) window: Semaphore,
    pub(crate) found: Mutex<HashMap<Asked, Found>>,
    pub(crate) total: Mutex<IoFigures>,
}

/// Demuxers that wait for the next run.
pub(crate) struct Lanes {
    idle: Mutex<Vec<Demuxer>>,
    pub(crate) slots: Semaphore,
}

impl Lanes {
    pub(crate) fn new(slots: usize) -> Self {
        Self { idle: Mutex::default(), slots: Semaphore::new(slots.max(1)) }
    }

    pub(crate) fn give(&self, demuxer: Demuxer) {
        lock(&self.idle).push(demuxer);
    }
}

/// Answers that are remembered, at most.
const MOST_FOUND: usize = 100_000;

impl Inner {
    pub(crate) fn uri(&self) -> &str {
        self.source.uri()
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, KeyframeIndex> {
        lock(&self.index)
    }

    /// A demuxer, made from the header in memory where none is idle. Blocks.
    pub(crate) fn lane(&self, call: &Arc<Call>) -> Result<Demuxer, VideoError> {
        let idle = lock(&self.lanes.idle).pop();
        match idle {
            Some(demuxer) => Ok(demuxer),
            None => Demuxer::open(&self.source, call, &self.demux),
        }
    }

    /// Brings a demuxer to where a run begins, with blocks that are in memory.
    pub(crate) fn position(
        &self,
        demuxer: &mut Demuxer,
        start: Start,
        call: &Arc<Call>,
        pins: Arc<Pins>,
    ) -> Result<(), VideoError> {
        match (self.layout, start) {
            (Layout::Samples, Start::Seek(ticks)) => {
                demuxer.control().begin(call, pins);
                demuxer.seek(SeekTo::Ticks(ticks))
            }
            (layout, Start::At(offset)) => enter(demuxer, layout, offset, (&self.demux, call, pins)),
            (layout, _) => enter(demuxer, layout, 0, (&self.demux, call, pins)),
        }
    }

    /// Ticks from frame to frame, on average; at least one.
    pub(crate) fn frame_ticks(&self) -> i64 {
        let seconds = self.probe.fps.filter(|fps| *fps > 0.0).map_or(0.0, |fps| 1.0 / fps);
        ((seconds * f64::from(self.clock.tick_den) / f64::from(self.clock.tick_num)).round() as i64).max(1)
    }

    pub(crate) fn remember(&self, asked: Asked, found: Found) {
        let mut table = lock(&self.found);
        if table.len() >= MOST_FOUND {
            table.clear();
        }
        table.insert(asked, found);
    }

    pub(crate) fn recall(&self, asked: Asked) -> Option<Found> {
        lock(&self.found).get(&asked).copied()
    }

    pub(crate) fn add(&self, figures: IoFigures) {
        *lock(&self.total) += figures;
    }

    pub(crate) fn total(&self) -> IoFigures {
        *lock(&self.total)
    }

    /// An error about a time whose bytes are there but give no frame.
    pub(crate) fn broken(&self, at: u64, ticks: i64, cause: String) -> VideoError {
        VideoError::Broken {
            uri: self.uri().to_owned(),
            at: at.min(self.source.size()),
            time: format!(" (time {:.3} s)", self.clock.since_start(ticks)),
            cause,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_times_come_back_as_their_tick() {
        let clock = Clock { tick_num: 1, tick_den: 15360, start: 1024, end: 0, delay: 0 };
        for frame in 0..1000 {
            let ticks = 1024 + frame * 512;
            let seconds = clock.since_start(ticks);
            assert_eq!(clock.ticks(seconds), ticks);
            let printed: f64 = format!("{seconds:.6}").parse().unwrap();
            assert_eq!(clock.ticks(printed), ticks);
        }
        assert_eq!(clock.ticks(0.01), 1024 + 153);
    }
}
