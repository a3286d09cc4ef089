//! The first displayed frame: what all times are counted from, and what a stream really looks like.

use std::sync::Arc;

use ffmpeg_next::frame;

use crate::{
    VideoError,
    decode::{Decoder, shown_at},
    demux::Demuxer,
    meter::Call,
    run::packet_time,
};

/// Packets read beyond the first frame to learn the frame rate.
const MORE_PACKETS: usize = 12;
/// A stream that gives no frame within this many packets is given up.
const MOST_PACKETS: usize = 5000;

/// See the module.
pub(crate) struct FirstFrame {
    pub(crate) shown_at: i64,
    pub(crate) frame: frame::Video,
    /// The packet that decoding began with.
    pub(crate) packet_pts: Option<i64>,
    pub(crate) packet_dts: Option<i64>,
    pub(crate) packet_at: Option<u64>,
    pub(crate) packet_bytes: u32,
    /// Ticks from frame to frame.
    pub(crate) step: Option<i64>,
}

/// Decodes from where the demuxer stands, which is the start.
pub(crate) fn first_frame(demuxer: &mut Demuxer, call: &Arc<Call>) -> Result<FirstFrame, VideoError> {
    let _running = call.decoding.start();
    let uri = demuxer.uri().to_owned();
    let mut decoder = Decoder::open(demuxer.parameters()?, demuxer.tick()?, 1, &uri)?;
    let (mut begun, mut times) = (None, Vec::new());
    let mut packets = 0;
    let frame = loop {
        let packet = demuxer.read()?;
        packets += 1;
        match &packet {
            Some(packet) if packets <= MOST_PACKETS => {
                times.extend(packet_time(packet));
                if packet.is_key() && begun.is_none() {
                    begun = Some((packet.pts(), packet.dts(), packet.position(), packet.size()));
                }
                decoder.send(packet);
            }
            _ => decoder.end(),
        }
        if let Some(frame) = decoder.receive(call) {
            break frame;
        }
        if packet.is_none() || packets > MOST_PACKETS {
            let cause = match decoder.damage() {
                Some(damage) => format!("no frame can be decoded: {}", damage.cause),
                None => "no frame can be decoded".to_owned(),
            };
            return Err(demuxer.broken(&cause));
        }
    };
    let (packet_pts, packet_dts, at, bytes) = begun.unwrap_or((None, None, -1, 0));
    let shown_at = shown_at(&frame).or_else(|| times.first().copied()).unwrap_or(0);
    Ok(FirstFrame {
        shown_at,
        frame,
        packet_pts,
        packet_dts,
        packet_at: u64::try_from(at).ok(),
        packet_bytes: u32::try_from(bytes).unwrap_or(0),
        step: step(demuxer, times)?,
    })
}

/// Ticks per frame: of the declared rate, else the median step between the first packets' times.
fn step(demuxer: &mut Demuxer, mut times: Vec<i64>) -> Result<Option<i64>, VideoError> {
    let (rate, tick) = (demuxer.stream()?.avg_frame_rate(), demuxer.tick()?);
    if rate.numerator() > 0 && rate.denominator() > 0 {
        let seconds = f64::from(rate.denominator()) / f64::from(rate.numerator());
        return Ok(Some((seconds * f64::from(tick.1) / f64::from(tick.0)).round() as i64));
    }
    while times.len() < MORE_PACKETS {
        match demuxer.read()? {
            Some(packet) => times.extend(packet_time(&packet)),
            None => break,
        }
    }
    times.sort_unstable();
    let mut steps: Vec<i64> =
        times.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0).collect();
    steps.sort_unstable();
    Ok(steps.get(steps.len() / 2).copied())
}
