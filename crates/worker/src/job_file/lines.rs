//! Lines of an untrusted file, each bounded: of an overlong one only its existence is known, its bytes are skipped.

use std::io::{self, BufRead, Read as _};

/// The longest line, in bytes, without its end.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What a line holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Text, without the line's end and the file's byte order mark.
    Text(String),
    /// More than [`MAX_LINE_BYTES`].
    TooLong,
    /// Bytes that are no text.
    NotUtf8 {
        /// How many of its bytes are.
        valid_up_to: usize,
    },
}

/// The lines of a reader with their numbers, from 1.
pub(super) struct Lines<R> {
    reader: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, number: 0 }
    }

    fn read(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let most = MAX_LINE_BYTES as u64 + 1;
        if self.reader.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        } else if bytes.len() > MAX_LINE_BYTES {
            self.skip_line()?;
            return Ok(Some(Line::TooLong));
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if self.number == 1 && bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
        }
        Ok(Some(match String::from_utf8(bytes) {
            Ok(text) => Line::Text(text),
            Err(cause) => Line::NotUtf8 { valid_up_to: cause.utf8_error().valid_up_to() },
        }))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let used = end.map_or(buffer.len(), |at| at + 1);
            self.reader.consume(used);
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<(u64, Line)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().map(|line| line.map(|line| (self.number, line))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(u64, Line)> {
        Lines::new(bytes).collect::<io::Result<_>>().unwrap()
    }

    #[test]
    fn the_bound_is_exact() {
        let mut bytes = vec![b'a'; MAX_LINE_BYTES];
        bytes.push(b'\n');
        assert!(matches!(&lines(&bytes)[..], [(1, Line::Text(text))] if text.len() == MAX_LINE_BYTES));
        bytes.insert(0, b'a');
        bytes.extend(b"b\r\n");
        assert_eq!(lines(&bytes), [(1, Line::TooLong), (2, Line::Text("b".to_owned()))]);
        assert!(
            matches!(&lines(&vec![b'a'; MAX_LINE_BYTES])[..], [(1, Line::Text(_))]),
            "no end of line is needed"
        );
    }

    #[test]
    fn a_byte_order_mark_is_left_out_once() {
        assert_eq!(lines(b"\xef\xbb\xbfa\n"), [(1, Line::Text("a".to_owned()))]);
        assert_eq!(lines(b"a\n\xef\xbb\xbfb")[1], (2, Line::Text("\u{feff}b".to_owned())));
        assert_eq!(lines(b"ab\xff\n"), [(1, Line::NotUtf8 { valid_up_to: 2 })]);
    }
}
