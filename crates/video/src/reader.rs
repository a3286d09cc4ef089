//! What FFmpeg reads from: `Read + Seek` over the blocks of an object.
//!
//! Hazards: FFmpeg turns an I/O error into a short packet and then into a decoding error, so the first error is kept in
//! [`Control`] and believed before anything that FFmpeg says. And FFmpeg asks for whole buffers: a read past the
//! blocks that are in memory would cost a request for bytes that nobody wants, so a read ends where the blocks do, and
//! only a read that starts at a missing block fetches.

use std::{
    io::{self, Read, Seek, SeekFrom},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{BLOCK_BYTES, VideoError, fetch::Pins, meter::Call, source::Source};

/// Blocks fetched on a miss out of the blue (64 KiB), and at most after a row of misses (1 MiB).
const LEAST_AHEAD: u64 = 4;
const MOST_AHEAD: u64 = 64;

/// The strings of a reader that lives inside FFmpeg.
pub(crate) struct Control {
    source: Arc<Source>,
    state: Mutex<State>,
}

struct State {
    call: Arc<Call>,
    error: Option<VideoError>,
    pins: Arc<Pins>,
    header: Arc<Pins>,
    patch: Option<Patch>,
    noted: Option<Pins>,
    fetch_limit: Option<u64>,
    position: u64,
}

/// Bytes that stand in for the object's own at one place.
#[derive(Clone, Debug)]
pub(crate) struct Patch {
    pub(crate) at: u64,
    pub(crate) bytes: Bytes,
}

impl Control {
    pub(crate) fn new(source: Arc<Source>, call: Arc<Call>) -> Arc<Self> {
        let state = State {
            call,
            error: None,
            pins: Arc::default(),
            header: Arc::default(),
            patch: None,
            noted: None,
            fetch_limit: None,
            position: 0,
        };
        Arc::new(Self { source, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a piece of work for a call with blocks that are in memory.
    pub(crate) fn begin(&self, call: &Arc<Call>, pins: Arc<Pins>) {
        let mut state = self.lock();
        state.call = Arc::clone(call);
        state.pins = pins;
        state.error = None;
    }

    /// Blocks of header and index, which stay.
    pub(crate) fn set_header(&self, header: Arc<Pins>) {
        self.lock().header = header;
    }

    pub(crate) fn set_patch(&self, patch: Option<Patch>) {
        self.lock().patch = patch;
    }

    /// Most bytes that the call may have fetched before a read fails as a scan.
    pub(crate) fn set_fetch_limit(&self, limit: Option<u64>) {
        self.lock().fetch_limit = limit;
    }

    /// From now on the blocks that are read are noted.
    pub(crate) fn note_blocks(&self) {
        self.lock().noted = Some(Pins::default());
    }

    /// The blocks read since [`Self::note_blocks`].
    pub(crate) fn noted_blocks(&self) -> Pins {
        self.lock().noted.take().unwrap_or_default()
    }

    /// The first error of the bytes since [`Self::begin`].
    pub(crate) fn take_error(&self) -> Option<VideoError> {
        self.lock().error.take()
    }

    /// How far reading had got.
    pub(crate) fn position(&self) -> u64 {
        self.lock().position
    }

    /// True where FFmpeg is to give up.
    pub(crate) fn interrupted(&self) -> bool {
        let state = self.lock();
        state.error.is_some() || state.call.cancel.is_cancelled()
    }
}

/// See the module.
pub(crate) struct RangeReader {
    control: Arc<Control>,
    position: u64,
    local: Pins,
    next_miss: u64,
    ahead: u64,
}

impl RangeReader {
    pub(crate) fn new(control: Arc<Control>) -> Self {
        Self { control, position: 0, local: Pins::default(), next_miss: u64::MAX, ahead: LEAST_AHEAD }
    }

    /// A block that is in memory.
    fn known(&self, block: u64) -> Option<Bytes> {
        let mut state = self.control.lock();
        let pinned =
            state.pins.get(block).or_else(|| state.header.get(block)).or_else(|| self.local.get(block));
        let found =
            pinned.cloned().or_else(|| self.control.source.cache.get(self.control.source.key(), block))?;
        if let Some(noted) = &mut state.noted {
            noted.insert(block, found.clone());
        }
        Some(found)
    }

    /// A block, fetched with some of those behind it where it is missing.
    fn fetch(&mut self, block: u64) -> Result<Bytes, VideoError> {
        let source = Arc::clone(&self.control.source);
        let (call, limit) = {
            let state = self.control.lock();
            (Arc::clone(&state.call), state.fetch_limit)
        };
        if let Some(limit) = limit
            && call.bytes() >= limit
        {
            return Err(VideoError::NeedsScan {
                uri: source.uri().to_owned(),
                container: "video".to_owned(),
                wanted: "the frame".to_owned(),
                cause: format!("{limit} bytes were read without coming to it"),
            });
        }
        let in_a_row = block >= self.next_miss && block <= self.next_miss.saturating_add(LEAST_AHEAD);
        self.ahead = if in_a_row { (self.ahead * 2).min(MOST_AHEAD) } else { LEAST_AHEAD };
        let range = block * BLOCK_BYTES..(block + self.ahead).saturating_mul(BLOCK_BYTES);
        self.local = source.runtime.block_on(source.prefetch_range(range, &call))?;
        self.next_miss = block + self.ahead;
        let found = self.local.get(block).cloned().ok_or_else(|| VideoError::Store {
            uri: source.uri().to_owned(),
            at: block * BLOCK_BYTES,
            length: BLOCK_BYTES,
            cause: "the store sent fewer bytes than it said".to_owned(),
        })?;
        if let Some(noted) = &mut self.control.lock().noted {
            noted.insert(block, found.clone());
        }
        Ok(found)
    }

    /// Bytes of a patch at the position.
    fn patched(&self, buffer: &mut [u8]) -> Option<usize> {
        let state = self.control.lock();
        let patch = state.patch.as_ref()?;
        let from = usize::try_from(self.position.checked_sub(patch.at)?).ok()?;
        let rest = patch.bytes.get(from..).filter(|rest| !rest.is_empty())?;
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Some(length)
    }

    /// Bytes up to a patch that lies ahead.
    fn before_patch(&self) -> u64 {
        let state = self.control.lock();
        state.patch.as_ref().and_then(|patch| patch.at.checked_sub(self.position)).unwrap_or(u64::MAX)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, VideoError> {
        if let Some(length) = self.patched(buffer) {
            return Ok(length);
        }
        let left = self.control.source.size().saturating_sub(self.position).min(self.before_patch());
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut filled = 0;
        while filled < wanted {
            let at = self.position + filled as u64;
            let block = match self.known(at / BLOCK_BYTES) {
                Some(block) => block,
                None if filled > 0 => break,
                None => self.fetch(at / BLOCK_BYTES)?,
            };
            let from = (at % BLOCK_BYTES) as usize;
            let length = block.len().saturating_sub(from).min(wanted - filled);
            if length == 0 {
                break;
            }
            buffer[filled..filled + length].copy_from_slice(&block[from..from + length]);
            filled += length;
        }
        Ok(filled)
    }
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let failed = {
            let state = self.control.lock();
            let cancelled = state.call.cancel.is_cancelled();
            state.error.clone().or_else(|| {
                cancelled.then(|| VideoError::Cancelled { uri: self.control.source.uri().to_owned() })
            })
        };
        let result = match failed {
            Some(error) => Err(error),
            None => self.fill(buffer),
        };
        match result {
            Ok(length) => {
                self.position += length as u64;
                self.control.lock().position = self.position;
                Ok(length)
            }
            Err(error) => {
                let text = error.to_string();
                self.control.lock().error.get_or_insert(error);
                Err(io::Error::other(text))
            }
        }
    }
}

impl Seek for RangeReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let size = self.control.source.size();
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => size.checked_add_signed(by),
        };
        self.position = target.ok_or_else(|| io::Error::other("seek before the start of the object"))?;
        Ok(self.position)
    }
}
