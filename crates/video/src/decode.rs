//! Packets to frames. A decoder lives for one run from a keyframe.

use ffmpeg_next::{Error, Packet, Rational, codec, decoder, frame};

use crate::{VideoError, ffi, meter::Call};

/// See the module.
pub(crate) struct Decoder {
    inner: decoder::Video,
    ended: bool,
    /// The first packet that the decoder refused.
    damage: Option<Damage>,
    packets: u64,
}

/// A packet that cannot be decoded.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    pub(crate) at: Option<u64>,
    pub(crate) cause: String,
}

impl Decoder {
    /// Opens a decoder with `threads` threads of its own.
    pub(crate) fn open(
        parameters: codec::Parameters,
        tick: (i32, i32),
        threads: usize,
        uri: &str,
    ) -> Result<Self, VideoError> {
        let id = parameters.id();
        let refused =
            |error: Error| VideoError::Codec { uri: uri.to_owned(), codec: format!("{id:?} ({error})") };
        let mut context = codec::Context::from_parameters(parameters).map_err(refused)?;
        let mut threading = codec::threading::Config::count(threads.max(1));
        threading.kind = codec::threading::Type::Frame;
        context.set_threading(threading);
        ffi::be_strict(&mut context);
        let mut unopened = context.decoder();
        unopened.set_packet_time_base(Rational(tick.0, tick.1));
        let inner = unopened.video().map_err(refused)?;
        Ok(Self { inner, ended: false, damage: None, packets: 0 })
    }

    /// Feeds a packet. A damaged one is remembered, not fatal: decoders go on at the next.
    pub(crate) fn send(&mut self, packet: &Packet) {
        self.packets += 1;
        if let Err(error) = self.inner.send_packet(packet)
            && !matches!(error, Error::Eof)
        {
            self.note(Some(packet), &error);
        }
    }

    /// No more packets: what the decoder holds back comes out.
    pub(crate) fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            // It fails only where it was called before.
            let _ = self.inner.send_eof();
        }
    }

    /// The next frame, in the order of display.
    pub(crate) fn receive(&mut self, call: &Call) -> Option<frame::Video> {
        loop {
            let mut frame = frame::Video::empty();
            match self.inner.receive_frame(&mut frame) {
                Ok(()) => {
                    call.decoded(1);
                    return Some(frame);
                }
                Err(Error::Eof) => return None,
                Err(Error::Other { errno }) if errno == ffmpeg_next::error::EAGAIN => return None,
                Err(error) => {
                    let before = self.damage.is_some();
                    self.note(None, &error);
                    if before {
                        return None;
                    }
                }
            }
        }
    }

    /// The first damage that was met.
    pub(crate) fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    fn note(&mut self, packet: Option<&Packet>, error: &Error) {
        let at = packet.and_then(|packet| u64::try_from(packet.position()).ok());
        self.damage.get_or_insert_with(|| Damage { at, cause: error.to_string() });
    }
}

/// When a frame is shown, in ticks.
pub(crate) fn shown_at(frame: &frame::Video) -> Option<i64> {
    frame.timestamp().or_else(|| frame.pts())
}
