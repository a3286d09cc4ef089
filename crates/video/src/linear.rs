//! Containers that can only be read from the start (AVI without an index and others): one pass over the packets for
//! all targets of a call. Only groups that hold a target are decoded; the packets of one group at a time are kept.
//!
//! Without leave to scan the pass ends after [`FREE_BYTES`] with an error.

use std::sync::Arc;

use ffmpeg_next::Packet;

use crate::{
    VideoError,
    decode::Decoder,
    demux::{DemuxOptions, Demuxer},
    gate::{Gate, Target},
    inner::Inner,
    meter::Call,
    run::{Images, Progress, Report, packet_time},
};

/// What may be read without `allow_scan`.
pub(crate) const FREE_BYTES: u64 = 8 << 20;

impl Inner {
    /// Reads from the start until all targets have their frames. Blocks.
    pub(crate) fn pass(
        &self,
        targets: Vec<Target>,
        images: &Images,
        call: &Arc<Call>,
    ) -> Result<Report, VideoError> {
        let options = DemuxOptions { patch: None, ..self.demux.clone() };
        let mut demuxer = Demuxer::open(&self.source, call, &options)?;
        if !self.options.allow_scan {
            demuxer.control().set_fetch_limit(Some(call.bytes().saturating_add(FREE_BYTES)));
        }
        // A pass that goes past what is free is a scan, whether it comes to the end or not.
        let begun = call.bytes();
        let _running = call.decoding.start();
        let mut progress = Progress::new(self, call, images);
        progress.gate = Gate::new(targets, i64::MIN);
        let mut pass = Pass { group: Vec::new(), decoder: None };
        while !progress.gate.is_done() {
            progress.stop_if_cancelled()?;
            match demuxer.read().map_err(|error| self.scan_error(error))? {
                Some(packet) => pass.take(packet, &demuxer, &mut progress)?,
                None => {
                    call.scanned();
                    progress.ended = true;
                    pass.end(&demuxer, &mut progress)?;
                    break;
                }
            }
        }
        if call.bytes().saturating_sub(begun) > FREE_BYTES {
            call.scanned();
        }
        progress.finish()
    }

    fn scan_error(&self, error: VideoError) -> VideoError {
        match error {
            VideoError::NeedsScan { uri, wanted, .. } => VideoError::NeedsScan {
                uri,
                container: self.probe.container.clone(),
                wanted,
                cause: format!("it can only be read from the start, and {FREE_BYTES} bytes were not enough"),
            },
            other => other,
        }
    }
}

struct Pass {
    /// Packets since the last keyframe, while nothing is decoded.
    group: Vec<Packet>,
    decoder: Option<Decoder>,
}

impl Pass {
    fn take(
        &mut self,
        packet: Packet,
        demuxer: &Demuxer,
        progress: &mut Progress<'_>,
    ) -> Result<(), VideoError> {
        let time = packet_time(&packet).unwrap_or(i64::MIN);
        let wanted = progress.gate.next().is_some_and(|target| target.ticks < time);
        if packet.is_key() && !wanted {
            // No target lies before this keyframe: what came before is not needed.
            self.decoder = None;
            self.group.clear();
        }
        if self.decoder.is_none() && wanted {
            self.wake(demuxer, progress)?;
        }
        match &mut self.decoder {
            Some(decoder) => {
                decoder.send(&packet);
                progress.drain(decoder)
            }
            None => {
                self.group.push(packet);
                Ok(())
            }
        }
    }

    fn end(&mut self, demuxer: &Demuxer, progress: &mut Progress<'_>) -> Result<(), VideoError> {
        if self.decoder.is_none() {
            self.wake(demuxer, progress)?;
        }
        if let Some(decoder) = &mut self.decoder {
            decoder.end();
            progress.drain(decoder)?;
        }
        Ok(())
    }

    /// Decodes the packets that were kept.
    fn wake(&mut self, demuxer: &Demuxer, progress: &mut Progress<'_>) -> Result<(), VideoError> {
        let mut decoder = Decoder::open(demuxer.parameters()?, demuxer.tick()?, 1, demuxer.uri())?;
        for packet in self.group.drain(..) {
            decoder.send(&packet);
            progress.drain(&mut decoder)?;
        }
        self.decoder = Some(decoder);
        Ok(())
    }
}
