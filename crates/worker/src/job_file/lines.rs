//! The lines of a reader.

use std::{
    collections::VecDeque,
    io::{self, BufRead},
};

use spectemp_types::{Line, LineSplitter};

/// The lines of a reader with their numbers, from 1.
pub(super) struct Lines<R> {
    reader: R,
    /// Taken at the end of the reader.
    splitter: Option<LineSplitter>,
    ready: VecDeque<(u64, Line)>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, splitter: Some(LineSplitter::default()), ready: VecDeque::new() }
    }

    fn read(&mut self) -> io::Result<Option<(u64, Line)>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let Some(splitter) = &mut self.splitter else { return Ok(None) };
            let bytes = self.reader.fill_buf()?;
            if bytes.is_empty() {
                return Ok(self.splitter.take().and_then(LineSplitter::finish));
            }
            splitter.push(bytes, |number, line| self.ready.push_back((number, line)));
            let used = bytes.len();
            self.reader.consume(used);
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<(u64, Line)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use spectemp_types::MAX_LINE_BYTES;

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
