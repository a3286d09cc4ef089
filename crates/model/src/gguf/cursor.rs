//! Little-endian numbers and texts of a file, one after the other, never past its end.

use crate::files::Blob;

/// Bytes read at a time.
const CHUNK: u64 = 1 << 20;
/// Names and texts longer than this are no such.
const MAX_TEXT: u64 = 1 << 20;

/// A place in a file.
pub(super) struct Cursor<'a> {
    blob: &'a Blob,
    at: u64,
    /// Bytes of the file from `start` on.
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(blob: &'a Blob) -> Self {
        Self { blob, at: 0, buffer: Vec::new(), start: 0 }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes that follow.
    pub(super) fn left(&self) -> u64 {
        self.blob.len() - self.at
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        Ok(u8::from_le_bytes(self.bytes()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.bytes()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// A length and so many bytes of text.
    pub(super) fn text(&mut self) -> Result<String, String> {
        let at = self.at;
        let length = self.u64()?;
        if length > MAX_TEXT {
            return Err(format!("a text of {length} bytes at byte {at}"));
        }
        self.check(length)?;
        let mut text = vec![0; length as usize];
        for byte in &mut text {
            *byte = self.u8()?;
        }
        String::from_utf8(text).map_err(|_| format!("a text at byte {at} is no UTF-8"))
    }

    fn check(&self, bytes: u64) -> Result<(), String> {
        if bytes > self.left() {
            return Err(format!("{bytes} bytes at byte {} are past the end at {}", self.at, self.blob.len()));
        }
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.check(N as u64)?;
        let held = |cursor: &Self| {
            let from = usize::try_from(cursor.at.checked_sub(cursor.start)?).ok()?;
            cursor.buffer.get(from..)?.first_chunk::<N>().copied()
        };
        if let Some(bytes) = held(self) {
            self.at += N as u64;
            return Ok(bytes);
        }
        self.buffer.resize(CHUNK.min(self.left()) as usize, 0);
        self.start = self.at;
        self.blob.read_at(self.at, &mut self.buffer).map_err(|error| error.to_string())?;
        let bytes = held(self).ok_or_else(|| format!("{N} bytes at byte {} cannot be read", self.at))?;
        self.at += N as u64;
        Ok(bytes)
    }
}
