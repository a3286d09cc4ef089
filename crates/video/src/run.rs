//! One run: from a keyframe forwards, until the wanted frames are there. Blocking; one thread, one decoder.

use std::sync::Arc;

use ffmpeg_next::{Packet, frame};
use spectemp_engine::{PixelBudget, RgbImage};
use spectemp_types::Scaler;

use crate::{
    VideoError,
    convert::Converter,
    decode::{Decoder, shown_at},
    demux::Demuxer,
    fetch::Pins,
    frame_cache::ImageKey,
    gate::{Gate, Target},
    inner::{Inner, Layout, Start},
    meter::Call,
};

/// What a run is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The keyframe itself: one packet. Keyframes before this time are passed over.
    Keyframe {
        /// In ticks.
        from: i64,
    },
    /// The frames for these targets.
    Frames(Vec<Target>),
}

/// A run to make.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) start: Start,
    /// Nothing precedes the start: there is no earlier keyframe to try.
    pub(crate) is_first: bool,
    pub(crate) goal: Goal,
    /// Threads of the decoder.
    pub(crate) threads: usize,
    /// What images are made.
    pub(crate) images: Arc<Images>,
    /// Blocks that were fetched for it.
    pub(crate) pins: Arc<Pins>,
}

/// What images are made of each frame.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    pub(crate) sizes: Vec<Option<PixelBudget>>,
    pub(crate) scaler: Scaler,
}

/// A frame that was wanted.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    /// None for [`Goal::Keyframe`].
    pub(crate) target: Option<Target>,
    pub(crate) shown_at: i64,
    pub(crate) key: bool,
    /// The bytes ended with this frame: nothing tells that it is shown until the target.
    pub(crate) last: bool,
    pub(crate) images: Vec<RgbImage>,
}

/// How a run went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) shots: Vec<Shot>,
    /// Targets for which an earlier keyframe must be tried.
    pub(crate) without: Vec<Target>,
    /// What was damaged, in words, and where.
    pub(crate) damage: Option<(u64, String)>,
}

/// A run in progress.
pub(crate) struct Progress<'a> {
    inner: &'a Inner,
    call: &'a Arc<Call>,
    images: &'a Images,
    converter: Converter<'a>,
    report: Report,
    pub(crate) gate: Gate<frame::Video>,
    /// The container has no more packets.
    pub(crate) ended: bool,
    /// When the frame before was shown.
    previous: Option<i64>,
}

impl Inner {
    /// Makes a run. Blocks.
    pub(crate) fn run(
        &self,
        demuxer: &mut Demuxer,
        run: &Run,
        call: &Arc<Call>,
    ) -> Result<Report, VideoError> {
        self.position(demuxer, run.start, call, Arc::clone(&run.pins))?;
        let _running = call.decoding.start();
        let mut progress = Progress::new(self, call, &run.images);
        demuxer.control().set_fetch_limit(self.run_limit(call));
        let tick = (self.clock.tick_num, self.clock.tick_den);
        let mut decoder = Decoder::open(demuxer.parameters()?, tick, run.threads, self.uri())?;
        let from = if let Goal::Keyframe { from } = run.goal { from } else { i64::MIN };
        let Some(first) = first_keyframe(demuxer, from)? else {
            if let Goal::Frames(targets) = &run.goal {
                progress.report.without.clone_from(targets);
            }
            progress.report.damage = Some((demuxer.control().position(), "no keyframe follows".to_owned()));
            return Ok(progress.report);
        };
        match &run.goal {
            Goal::Keyframe { .. } => progress.keyframe(&mut decoder, &first)?,
            Goal::Frames(targets) => {
                progress.split(&first, run.is_first, targets);
                progress.frames(demuxer, &mut decoder, first)?;
            }
        }
        if let Some(damage) = decoder.damage() {
            let at = damage.at.unwrap_or_else(|| demuxer.control().position());
            progress.report.damage = Some((at, damage.cause.clone()));
        }
        Ok(progress.report)
    }
}

impl Inner {
    /// A table of samples tells what a run reads; elsewhere a stream without keyframes must not become a scan.
    fn run_limit(&self, call: &Call) -> Option<u64> {
        if self.layout == Layout::Samples { None } else { self.fetch_limit(call) }
    }
}

/// The first keyframe's packet from here; those before it cannot be decoded.
fn first_keyframe(demuxer: &mut Demuxer, from: i64) -> Result<Option<Packet>, VideoError> {
    while let Some(packet) = demuxer.read()? {
        if packet.is_key() && packet_time(&packet).is_none_or(|time| time >= from) {
            return Ok(Some(packet));
        }
    }
    Ok(None)
}

/// When a packet's frame is shown, as far as the container tells.
pub(crate) fn packet_time(packet: &Packet) -> Option<i64> {
    packet.pts().or_else(|| packet.dts())
}

impl<'a> Progress<'a> {
    pub(crate) fn new(inner: &'a Inner, call: &'a Arc<Call>, images: &'a Images) -> Self {
        let converter = Converter::new(inner.uri(), inner.display, images.scaler);
        let gate = Gate::new(Vec::new(), i64::MIN);
        Self { inner, call, images, converter, report: Report::default(), gate, ended: false, previous: None }
    }

    /// No more frames.
    pub(crate) fn finish(mut self) -> Result<Report, VideoError> {
        self.last_shots()?;
        Ok(self.report)
    }

    fn keyframe(&mut self, decoder: &mut Decoder, packet: &Packet) -> Result<(), VideoError> {
        decoder.send(packet);
        let mut frame = decoder.receive(self.call);
        decoder.end();
        if frame.is_none() {
            frame = decoder.receive(self.call);
        }
        let time = frame.as_ref().and_then(|frame| shown_at(frame).or_else(|| packet_time(packet)));
        if let (Some(frame), Some(time)) = (frame, time) {
            self.shoot(None, time, &frame)?;
        }
        Ok(())
    }

    /// Frames before the first keyframe are looked for from an earlier one.
    fn split(&mut self, first: &Packet, is_first: bool, targets: &[Target]) {
        let from = packet_time(first).filter(|_| !is_first).unwrap_or(i64::MIN);
        let (reachable, early) = targets.iter().partition(|target| target.after || target.ticks >= from);
        self.report.without = early;
        self.gate = Gate::new(reachable, from);
    }

    fn frames(
        &mut self,
        demuxer: &mut Demuxer,
        decoder: &mut Decoder,
        first: Packet,
    ) -> Result<(), VideoError> {
        let mut next = Some(first);
        while let Some(packet) = next {
            if self.gate.is_done() || self.is_past(&packet) {
                break;
            }
            self.stop_if_cancelled()?;
            decoder.send(&packet);
            self.drain(decoder)?;
            next = demuxer.read()?;
            self.ended = next.is_none();
        }
        if !self.gate.is_done() {
            decoder.end();
            self.drain(decoder)?;
        }
        self.last_shots()
    }

    fn last_shots(&mut self) -> Result<(), VideoError> {
        let before = self.report.shots.len();
        let gate = std::mem::replace(&mut self.gate, Gate::new(Vec::new(), i64::MIN));
        let without = gate.finish(|target, at, frame| self.shoot(Some(target), at, frame))?;
        self.report.without.extend(without);
        for shot in &mut self.report.shots[before..] {
            shot.last = self.ended;
        }
        Ok(())
    }

    /// True where neither this packet nor any later one can be shown at or before the last target: decoding times only
    /// rise, and nothing is shown before it is decoded. What the decoder holds back then comes out at the end.
    fn is_past(&self, packet: &Packet) -> bool {
        let trusted =
            matches!(self.inner.layout, Layout::Samples | Layout::Stream | Layout::Fragments { .. });
        match (packet.dts(), packet.pts(), self.gate.last()) {
            (Some(decoded), Some(_), Some(last)) if trusted && !last.after => decoded > last.ticks,
            _ => false,
        }
    }

    /// Takes the frames that the decoder has.
    pub(crate) fn drain(&mut self, decoder: &mut Decoder) -> Result<(), VideoError> {
        while !self.gate.is_done()
            && let Some(frame) = decoder.receive(self.call)
        {
            // AVI tells decoding times only, and the frames that come out last are without one.
            let follows = self.previous.map(|previous| previous.saturating_add(self.inner.frame_ticks()));
            if let Some(time) = shown_at(&frame).or(follows) {
                self.previous = Some(time);
                // The gate is lent out, so that what it decides can be shot at once.
                let mut gate = std::mem::replace(&mut self.gate, Gate::new(Vec::new(), i64::MIN));
                let offered =
                    gate.offer(time, frame, |target, at, frame| self.shoot(Some(target), at, frame));
                self.gate = gate;
                offered?;
            }
        }
        Ok(())
    }

    fn shoot(&mut self, target: Option<Target>, at: i64, frame: &frame::Video) -> Result<(), VideoError> {
        self.stop_if_cancelled()?;
        if frame.is_corrupt() || frame.has_decode_errors() {
            let position = u64::try_from(frame.packet().position).unwrap_or(0);
            self.report.damage.get_or_insert((position, "the frame was decoded with errors".to_owned()));
        }
        let (cache, object) = (&self.inner.options.frame_cache, self.inner.source.key());
        let key = |size: &Option<PixelBudget>| ImageKey::new(object, at, *size, self.images.scaler);
        let known: Option<Vec<RgbImage>> =
            self.images.sizes.iter().map(|size| cache.get(&key(size))).collect();
        let images = match known {
            Some(images) => images,
            None => {
                let images = self.converter.images(frame, &self.images.sizes)?;
                for (size, image) in self.images.sizes.iter().zip(&images) {
                    cache.insert(key(size), image.clone());
                }
                images
            }
        };
        let key = target.is_none() || frame.is_key();
        self.report.shots.push(Shot { target, shown_at: at, key, last: false, images });
        Ok(())
    }

    pub(crate) fn stop_if_cancelled(&self) -> Result<(), VideoError> {
        if self.call.cancel.is_cancelled() {
            return Err(VideoError::Cancelled { uri: self.inner.uri().to_owned() });
        }
        Ok(())
    }
}
