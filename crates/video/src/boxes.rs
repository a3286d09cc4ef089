//! A look at an MP4's top-level boxes before FFmpeg opens it: where the index lies, so that it is fetched in one go
//! instead of buffer by buffer; whether the file is fragmented; where a cut-off file ends. What is found here decides
//! what is fetched and how fragments are found, never what a frame is.

use std::{ops::Range, sync::Arc};

use crate::{BLOCK_BYTES, VideoError, fetch::Pins, meter::Call, source::Source};

/// An index larger than this is refused.
const MOST_INDEX_BYTES: u64 = 512 << 20;
/// A tail up to this long is fetched whole: it is the index.
const TAIL_BYTES: u64 = 8 << 20;
/// More boxes than this at the top level are no video file.
const MOST_BOXES: usize = 10_000;

/// What the top level says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mp4 {
    /// Whole, its head included.
    pub(crate) moov: Option<Range<u64>>,
    /// Its blocks.
    pub(crate) index: Arc<Pins>,
    pub(crate) first_moof: Option<u64>,
    pub(crate) fragmented: bool,
    /// The fragments, where an index at the front knows all of them.
    pub(crate) fragments: Vec<Fragment>,
    /// What a cut-off file lacks.
    pub(crate) cut: Option<String>,
}

/// One box: its four letters and where it lies. `end` may be beyond the object's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) name: [u8; 4],
    pub(crate) body: u64,
    pub(crate) end: u64,
}

const FIRST: [&[u8; 4]; 8] = [b"ftyp", b"styp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"];

/// Walks the top level, and brings the index into memory. None for what is no MP4.
pub(crate) async fn survey(source: &Source, call: &Call) -> Result<Option<Mp4>, VideoError> {
    let (mut mp4, mut at) = (Mp4::default(), 0);
    for _ in 0..MOST_BOXES {
        if at >= source.size() {
            break;
        }
        let Some(head) = head_at(source, call, at).await? else { break };
        if at == 0 && !FIRST.contains(&&head.name) {
            return Ok(None);
        }
        if head.end > source.size() {
            mp4.cut = Some(format!(
                "the file is cut off: its {:?} box ends at byte {}",
                String::from_utf8_lossy(&head.name),
                head.end
            ));
        }
        match &head.name {
            b"moov" => mp4.take_moov(source, call, at, &head).await?,
            b"sidx" => mp4.take_sidx(source, call, &head).await?,
            b"moof" => {
                mp4.fragmented = true;
                mp4.first_moof = Some(at);
                break;
            }
            _ => {}
        }
        at = head.end;
    }
    Ok(Some(mp4))
}

impl Mp4 {
    /// The body of the index.
    pub(crate) fn moov_body(&self) -> Vec<u8> {
        let Some(range) = &self.moov else { return Vec::new() };
        let bytes = self.index.bytes(range.clone());
        let body = head(&bytes, 0, bytes.len() as u64).map_or(0, |head| head.body as usize);
        bytes.get(body..).unwrap_or_default().to_vec()
    }

    async fn take_moov(
        &mut self,
        source: &Source,
        call: &Call,
        at: u64,
        head: &Head,
    ) -> Result<(), VideoError> {
        if head.end - at > MOST_INDEX_BYTES {
            return Err(VideoError::Resources {
                uri: source.uri().to_owned(),
                cause: format!(
                    "the index of {} bytes at byte {at} is larger than can be kept",
                    head.end - at
                ),
            });
        }
        let range = at..head.end.min(source.size());
        let pins = source.prefetch_range(range.clone(), call).await?;
        let body = pins.bytes(head.body..range.end);
        self.fragmented |= children(&body).any(|(name, _)| name == *b"mvex");
        self.moov = Some(range);
        self.index = Arc::new(pins);
        Ok(())
    }
}

impl Mp4 {
    /// Believes the first segment index that reaches (nearly) to the end; DASH files have one per segment too.
    async fn take_sidx(&mut self, source: &Source, call: &Call, head: &Head) -> Result<(), VideoError> {
        if head.end > source.size() || !self.fragments.is_empty() {
            return Ok(());
        }
        let pins = source.prefetch_range(head.body..head.end, call).await?;
        if let Some((fragments, end)) = sidx(&pins.bytes(head.body..head.end), head.end)
            && end + source.size() / 100 >= source.size()
            && end <= source.size()
        {
            self.fragments = fragments;
        }
        Ok(())
    }
}

/// Reads the head of the box at `at`; none where there is no sound one.
async fn head_at(source: &Source, call: &Call, at: u64) -> Result<Option<Head>, VideoError> {
    let rest = source.size() - at;
    // A short tail is the index: it comes with its head.
    let is_known = source.cache.get(source.key(), at / BLOCK_BYTES).is_some();
    let ahead = if rest <= TAIL_BYTES && !is_known { rest } else { 16 };
    let pins = source.prefetch_range(at..at + ahead, call).await?;
    Ok(head(&pins.bytes(at..at + 16), at, source.size()))
}

/// Reads a box's head from its first bytes.
pub(crate) fn head(bytes: &[u8], at: u64, size: u64) -> Option<Head> {
    let short = u64::from(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?));
    let name: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    let (length, head) = match short {
        0 => (size.checked_sub(at)?, 8),
        1 => (u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?), 16),
        short => (short, 8),
    };
    (length >= head).then(|| Head { name, body: at + head, end: at.saturating_add(length) })
}

/// The boxes inside a body: name and body.
pub(crate) fn children(body: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = body.get(at..)?;
        let head = head(rest, 0, rest.len() as u64)?;
        let end = usize::try_from(head.end).ok()?.min(rest.len());
        at += end.max(8);
        Some((head.name, rest.get(head.body as usize..end)?))
    })
}

/// A fragment: its time in ticks of `scale` a second, and where its moof begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) time: u64,
    pub(crate) scale: u32,
    pub(crate) at: u64,
}

/// Reads a segment index: its fragments and where the last one ends. `end` is the first byte after the box.
fn sidx(body: &[u8], end: u64) -> Option<(Vec<Fragment>, u64)> {
    let word = |at: usize| Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_be_bytes(body.get(at..at + 8)?.try_into().ok()?));
    let wide = body.first()? != &0;
    let scale = word(8)?;
    let (mut time, first, mut at) =
        if wide { (long(12)?, long(20)?, 28) } else { (u64::from(word(12)?), u64::from(word(16)?), 20) };
    let count = u16::from_be_bytes(body.get(at + 2..at + 4)?.try_into().ok()?);
    at += 4;
    let mut offset = end.checked_add(first)?;
    let mut fragments = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (size, duration) = (word(at)?, word(at + 4)?);
        // The highest bit says that another index follows instead of a fragment.
        if size >> 31 != 0 {
            return None;
        }
        fragments.push(Fragment { time, scale, at: offset });
        (time, offset, at) = (time + u64::from(duration), offset + u64::from(size), at + 12);
    }
    (scale > 0 && count > 1).then_some((fragments, offset))
}

/// Bytes that make a demuxer skip from the first fragment to a later one.
pub(crate) fn skip_to(skipped: Range<u64>) -> Vec<u8> {
    let length = (skipped.end - skipped.start).to_be_bytes();
    [&1u32.to_be_bytes()[..], b"free", &length].concat()
}

/// The first fragment in `bytes`: a `moof` whose first box is its header.
pub(crate) fn find_moof(bytes: &[u8]) -> Option<usize> {
    bytes.windows(16).position(|window| window[4..8] == *b"moof" && window[8..16] == *b"\0\0\0\x10mfhd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_in_three_lengths() {
        assert_eq!(head(b"\0\0\0\x10ftyp", 5, 100).unwrap(), Head { name: *b"ftyp", body: 13, end: 21 });
        let long = [&[0, 0, 0, 1][..], b"mdat", &500u64.to_be_bytes()].concat();
        assert_eq!(head(&long, 0, 100).unwrap(), Head { name: *b"mdat", body: 16, end: 500 });
        assert_eq!(head(b"\0\0\0\0mdat", 10, 100).unwrap().end, 100);
        assert_eq!(head(b"\0\0\0\x04mdat", 0, 100), None);
        assert_eq!(head(b"\0\0", 0, 100), None);
    }

    #[test]
    fn a_free_box_covers_the_gap_and_a_fragment_is_found_behind_it() {
        let free = skip_to(100..1000);
        assert_eq!(head(&free, 100, 5000).unwrap(), Head { name: *b"free", body: 116, end: 1000 });
        let bytes = [b"xxmoofxx\0\0\0\x40moof\0\0\0\x10mfhd\0\0\0\0".as_slice()].concat();
        assert_eq!(find_moof(&bytes), Some(8));
    }

    #[test]
    fn children_end_where_the_body_does() {
        let body = [&[0, 0, 0, 9][..], b"abcd", b"x", &[0, 0, 0, 99], b"efgh", b"yz"].concat();
        let found: Vec<_> = children(&body).collect();
        assert_eq!(found, vec![(*b"abcd", &b"x"[..]), (*b"efgh", &b"yz"[..])]);
    }

    #[test]
    fn a_segment_index_gives_times_and_offsets() {
        let words: [u32; 11] = [0, 1, 1000, 0, 0, 2, 300, 2000, 0, 400, 2000];
        let body: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).chain([0; 4]).collect();
        let (fragments, end) = sidx(&body, 5000).unwrap();
        assert_eq!(end, 5700);
        assert_eq!(
            fragments,
            vec![Fragment { time: 0, scale: 1000, at: 5000 }, Fragment { time: 2000, scale: 1000, at: 5300 }]
        );
        assert_eq!(sidx(&body[..30], 0), None);
    }
}
