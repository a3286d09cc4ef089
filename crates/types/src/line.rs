//! Lines of an untrusted file, each bounded: of an overlong one only its existence is known, its bytes are skipped.

/// The longest line, in bytes, without its end.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What a line holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
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

/// Cuts a stream of bytes, in pieces of any size, into lines. Holds one line at most.
#[derive(Debug, Default)]
pub struct LineSplitter {
    begun: Vec<u8>,
    too_long: bool,
    number: u64,
}

impl LineSplitter {
    /// Takes the next bytes; hands every line that they complete to `take`, with its number from 1.
    pub fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(u64, Line)) {
        while let Some(at) = bytes.iter().position(|&byte| byte == b'\n') {
            self.extend(&bytes[..at]);
            let (number, line) = self.complete();
            take(number, line);
            bytes = &bytes[at + 1..];
        }
        self.extend(bytes);
    }

    /// The last line, where the stream does not end with a line feed.
    pub fn finish(mut self) -> Option<(u64, Line)> {
        (self.too_long || !self.begun.is_empty()).then(|| self.complete())
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.too_long || self.begun.len() + bytes.len() > MAX_LINE_BYTES {
            self.too_long = true;
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }

    fn complete(&mut self) -> (u64, Line) {
        self.number += 1;
        let bytes = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.too_long) {
            return (self.number, Line::TooLong);
        }
        (self.number, Line::read(bytes, self.number == 1))
    }
}

impl Line {
    /// The line of these bytes, its line feed left out; `first` where a byte order mark may stand before it.
    pub fn read(mut bytes: Vec<u8>, first: bool) -> Self {
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if first && bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(cause) => Self::NotUtf8 { valid_up_to: cause.utf8_error().valid_up_to() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8], piece: usize) -> Vec<(u64, Line)> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for piece in bytes.chunks(piece) {
            splitter.push(piece, |number, line| lines.push((number, line)));
        }
        lines.extend(splitter.finish());
        lines
    }

    #[test]
    fn lines_do_not_depend_on_the_pieces() {
        let bytes = b"\xef\xbb\xbfa\r\n\nb\xff\nlast";
        let whole = lines(bytes, bytes.len());
        assert_eq!(
            whole,
            [
                (1, Line::Text("a".to_owned())),
                (2, Line::Text(String::new())),
                (3, Line::NotUtf8 { valid_up_to: 1 }),
                (4, Line::Text("last".to_owned())),
            ]
        );
        for piece in 1..bytes.len() {
            assert_eq!(lines(bytes, piece), whole, "{piece}");
        }
    }

    #[test]
    fn the_bound_is_exact() {
        let mut bytes = vec![b'a'; MAX_LINE_BYTES];
        bytes.push(b'\n');
        assert!(matches!(&lines(&bytes, 8192)[..], [(1, Line::Text(text))] if text.len() == MAX_LINE_BYTES));
        bytes.insert(0, b'a');
        bytes.extend(b"b\n");
        assert_eq!(lines(&bytes, 8192), [(1, Line::TooLong), (2, Line::Text("b".to_owned()))]);
        assert_eq!(lines(&vec![b'a'; MAX_LINE_BYTES + 1], 8192), [(1, Line::TooLong)]);
    }
}
