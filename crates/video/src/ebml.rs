//! A look at a Matroska file before FFmpeg opens it: where its clusters begin, and its cues (time to cluster). FFmpeg
//! reads a file without cues from front to back when it seeks, so seeking is done here and FFmpeg opens at a cluster.

use std::ops::Range;

use crate::{VideoError, meter::Call, source::Source};

const EBML: u32 = 0x1A45_DFA3;
const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1F43_B675;
const SEEK_HEAD: u32 = 0x114D_9B74;
const CUES: u32 = 0x1C53_BB6B;
const TAGS: u32 = 0x1254_C367;
/// More elements than this before the first cluster are no video file.
const MOST_ELEMENTS: usize = 1000;
/// Cues larger than this are not believed.
const MOST_CUES_BYTES: u64 = 64 << 20;

/// What the top level says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matroska {
    pub(crate) first_cluster: u64,
    pub(crate) cues: Vec<Cue>,
}

/// A cue: time in ticks of the segment, track number, and where the cluster begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cue {
    pub(crate) time: u64,
    pub(crate) track: u64,
    pub(crate) cluster: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Element {
    id: u32,
    head: u64,
    /// None for an element of unknown size (a stream that was written to a pipe).
    size: Option<u64>,
}

/// Walks the segment up to its first cluster, and reads the cues. None for what is no Matroska file.
pub(crate) async fn survey(source: &Source, call: &Call) -> Result<Option<Matroska>, VideoError> {
    let Some(ebml) = element_at(source, call, 0).await?.filter(|element| element.id == EBML) else {
        return Ok(None);
    };
    let at = ebml.head + ebml.size.unwrap_or(0);
    let Some(segment) = element_at(source, call, at).await?.filter(|element| element.id == SEGMENT) else {
        return Ok(None);
    };
    let start = at + segment.head;
    let (mut at, mut cues, mut first_cluster) = (start, None, None);
    for _ in 0..MOST_ELEMENTS {
        if at >= source.size() {
            break;
        }
        let Some(element) = element_at(source, call, at).await? else { break };
        if element.id == CLUSTER {
            first_cluster = Some(at);
            break;
        }
        let Some(size) = element.size else { break };
        let body = at + element.head..(at + element.head).saturating_add(size);
        match element.id {
            SEEK_HEAD if size < 1 << 16 => {
                let pins = source.prefetch_range(body.clone(), call).await?;
                let seeks = seek_head(&pins.bytes(body.clone()), start);
                cues = seeks.iter().find(|(id, _)| *id == CUES).map(|(_, at)| *at).or(cues);
                prefetch_tail(source, call, &seeks).await?;
            }
            CUES => cues = Some(at),
            _ => {}
        }
        at = body.end;
    }
    let Some(first_cluster) = first_cluster else { return Ok(None) };
    let cues = match cues {
        Some(at) => cues_at(source, call, at, start).await?,
        None => Vec::new(),
    };
    Ok(Some(Matroska { first_cluster, cues }))
}

/// Cues and tags stand at the end, which FFmpeg visits while it opens: both in one request.
async fn prefetch_tail(source: &Source, call: &Call, seeks: &[(u32, u64)]) -> Result<(), VideoError> {
    let late = seeks.iter().filter(|(id, at)| matches!(*id, CUES | TAGS) && *at > source.size() / 2);
    let tail = late.map(|(_, at)| *at).min();
    if let Some(at) = tail.filter(|at| source.size().saturating_sub(*at) <= 1 << 20) {
        source.prefetch_range(at..source.size(), call).await?;
    }
    Ok(())
}

async fn cues_at(source: &Source, call: &Call, at: u64, segment: u64) -> Result<Vec<Cue>, VideoError> {
    if at >= source.size() {
        return Ok(Vec::new());
    }
    let Some(element) = element_at(source, call, at).await?.filter(|element| element.id == CUES) else {
        return Ok(Vec::new());
    };
    let Some(size) = element.size.filter(|size| *size <= MOST_CUES_BYTES) else { return Ok(Vec::new()) };
    let body = at + element.head..at + element.head + size;
    let pins = source.prefetch_range(body.clone(), call).await?;
    let mut cues = cues(&pins.bytes(body), segment);
    cues.retain(|cue| cue.cluster < source.size());
    Ok(cues)
}

async fn element_at(source: &Source, call: &Call, at: u64) -> Result<Option<Element>, VideoError> {
    let pins = source.prefetch_range(at..at + 12, call).await?;
    Ok(element(&pins.bytes(at..at + 12)))
}

/// Reads an element's id and size.
fn element(bytes: &[u8]) -> Option<Element> {
    let id_length = bytes.first()?.leading_zeros() as usize + 1;
    if id_length > 4 {
        return None;
    }
    let id = bytes.get(..id_length)?.iter().fold(0u32, |id, byte| id << 8 | u32::from(*byte));
    let rest = &bytes[id_length..];
    let size_length = rest.first()?.leading_zeros() as usize + 1;
    if size_length > 8 {
        return None;
    }
    let marked = rest.get(..size_length)?.iter().fold(0u64, |size, byte| size << 8 | u64::from(*byte));
    let mask = (1u64 << (7 * size_length)) - 1;
    let size = (marked & mask != mask).then_some(marked & mask);
    Some(Element { id, head: (id_length + size_length) as u64, size })
}

/// The elements inside a body: id and body.
fn children(body: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let element = element(body.get(at..)?)?;
        let from = at + element.head as usize;
        let upto = element.size.map_or(body.len(), |size| from.saturating_add(size as usize)).min(body.len());
        at = upto;
        Some((element.id, body.get(from..upto)?))
    })
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Ids and offsets that a seek head names.
fn seek_head(body: &[u8], segment: u64) -> Vec<(u32, u64)> {
    let seeks = children(body).filter(|(id, _)| *id == 0x4DBB);
    seeks
        .filter_map(|(_, seek)| {
            let find =
                |wanted: u32| children(seek).find(|(id, _)| *id == wanted).map(|(_, body)| number(body));
            Some((u32::try_from(find(0x53AB)?).ok()?, segment.checked_add(find(0x53AC)?)?))
        })
        .collect()
}

fn cues(body: &[u8], segment: u64) -> Vec<Cue> {
    let mut cues = Vec::new();
    for (_, point) in children(body).filter(|(id, _)| *id == 0xBB) {
        let Some((_, time)) = children(point).find(|(id, _)| *id == 0xB3) else { continue };
        for (_, position) in children(point).filter(|(id, _)| *id == 0xB7) {
            let find =
                |wanted: u32| children(position).find(|(id, _)| *id == wanted).map(|(_, body)| number(body));
            if let (Some(track), Some(cluster)) = (find(0xF7), find(0xF1)) {
                cues.push(Cue { time: number(time), track, cluster: segment.saturating_add(cluster) });
            }
        }
    }
    cues
}

/// Bytes that make a demuxer skip from `from`, the first cluster, to a later cluster.
pub(crate) fn skip_to(skipped: Range<u64>) -> Vec<u8> {
    // An element of kind Void with a size of eight bytes.
    let mut bytes = vec![0xEC];
    bytes.extend_from_slice(&((skipped.end - skipped.start - 9) | 1 << 56).to_be_bytes());
    bytes
}

/// The first cluster in `bytes`.
pub(crate) fn find_cluster(bytes: &[u8]) -> Option<usize> {
    let id = CLUSTER.to_be_bytes();
    bytes.windows(4).enumerate().filter(|(_, window)| *window == id).map(|(at, _)| at).find(|at| {
        // A cluster begins with its time; a checksum or padding may stand before it.
        element(&bytes[*at..])
            .is_some_and(|cluster| matches!(bytes.get(at + cluster.head as usize), Some(0xE7 | 0xBF | 0xEC)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_lengths_of_one_to_eight_bytes_or_none() {
        assert_eq!(element(&[0xE7, 0x81, 0]), Some(Element { id: 0xE7, head: 2, size: Some(1) }));
        let unknown = [0x1F, 0x43, 0xB6, 0x75, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(element(&unknown), Some(Element { id: CLUSTER, head: 12, size: None }));
        assert_eq!(element(&[0, 1, 2]), None);
        assert_eq!(element(&[0x1A]), None);
    }

    #[test]
    fn cues_give_times_and_clusters() {
        let position = [0xB7, 0x87, 0xF7, 0x81, 1, 0xF1, 0x82, 1, 0];
        let point = [&[0xBB, 0x80 + 3 + 9, 0xB3, 0x81, 7][..], &position].concat();
        assert_eq!(cues(&point, 50), vec![Cue { time: 7, track: 1, cluster: 306 }]);
    }

    #[test]
    fn a_void_element_covers_the_gap() {
        let void = skip_to(100..1000);
        let read = element(&void).unwrap();
        assert_eq!((read.id, read.head + read.size.unwrap()), (0xEC, 900));
    }

    #[test]
    fn a_cluster_is_told_from_its_four_bytes_in_pictures() {
        let id = CLUSTER.to_be_bytes();
        let bytes = [&id[..], &[0x81, 0x11], &[9; 5], &id, &[0x84, 0xE7, 0x81, 0]].concat();
        assert_eq!(find_cluster(&bytes), Some(11));
    }
}
