//! When the last frame of an MP4 track is shown. FFmpeg's index has decoding times only and the header's duration is
//! the sum of decoding steps, which falls short of the last frame where steps vary; the tables in the header tell.

use crate::boxes::children;

/// Frames at the end that are looked at: no stream reorders more.
const LAST: usize = 64;

/// The end of a track, in its own ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrackEnd {
    /// Samples of the track.
    pub(crate) samples: u64,
    /// From the decoding time of the last sample to the showing of the last frame.
    pub(crate) ahead: i64,
    /// The last decoding step.
    pub(crate) step: i64,
}

/// Reads the end of a track from the body of a `moov` box.
pub(crate) fn track_end(moov: &[u8], track: u32) -> Option<TrackEnd> {
    let trak = children(moov)
        .filter(|(name, _)| name == b"trak")
        .map(|(_, body)| body)
        .find(|body| find(body, b"tkhd").and_then(track_id) == Some(track))?;
    let table = find(find(find(trak, b"mdia")?, b"minf")?, b"stbl")?;
    let steps = runs(find(table, b"stts")?)?;
    let shifts = find(table, b"ctts").map_or(Some(Vec::new()), runs)?;
    let samples = steps.iter().map(|(count, _)| u64::from(*count)).sum();
    // Samples that would be shown before they are decoded move the whole track on.
    let moved = shifts.iter().map(|(_, shift)| -shift).max().unwrap_or(0).max(0);
    let (steps, shifts) = (last(&steps), last(&shifts));
    let mut decoded = 0;
    let mut ahead = i64::MIN;
    for number in 0..steps.len() {
        ahead = ahead.max(decoded + shifts.get(number).copied().unwrap_or(0) + moved);
        // The step of the sample before leads to this one.
        decoded -= steps.get(number + 1).copied().unwrap_or(0);
    }
    Some(TrackEnd { samples, ahead: (ahead > i64::MIN).then_some(ahead)?, step: steps.first().copied()? })
}

fn find<'a>(body: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    children(body).find(|(found, _)| found == name).map(|(_, body)| body)
}

fn track_id(tkhd: &[u8]) -> Option<u32> {
    let at = if *tkhd.first()? == 0 { 12 } else { 20 };
    word(tkhd, at)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Runs of a table: how many samples, and their value.
fn runs(table: &[u8]) -> Option<Vec<(u32, i64)>> {
    let count = word(table, 4)? as usize;
    let rows = table.get(8..)?.chunks_exact(8).take(count);
    Some(rows.filter_map(|row| Some((word(row, 0)?, i64::from(word(row, 4)?.cast_signed())))).collect())
}

/// The values of the last samples, the very last one first.
fn last(runs: &[(u32, i64)]) -> Vec<i64> {
    runs.iter()
        .rev()
        .flat_map(|(count, value)| std::iter::repeat_n(*value, *count as usize))
        .take(LAST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes()[..], name, body].concat()
    }

    fn table(rows: &[[i32; 2]]) -> Vec<u8> {
        let words = rows.iter().flatten().flat_map(|word| word.to_be_bytes());
        [0, 0, 0, 0].into_iter().chain((rows.len() as u32).to_be_bytes()).chain(words).collect()
    }

    fn moov(steps: &[[i32; 2]], shifts: Option<&[[i32; 2]]>) -> Vec<u8> {
        let mut stbl = boxed(b"stts", &table(steps));
        stbl.extend(shifts.map_or(Vec::new(), |shifts| boxed(b"ctts", &table(shifts))));
        let mdia = boxed(b"mdia", &boxed(b"minf", &boxed(b"stbl", &stbl)));
        let tkhd = boxed(b"tkhd", &[&[0; 12][..], &7u32.to_be_bytes(), &[0; 68]].concat());
        [boxed(b"mvhd", &[0; 4]), boxed(b"trak", &[tkhd, mdia].concat())].concat()
    }

    #[test]
    fn without_reordering_the_last_sample_is_the_last_frame() {
        let end = track_end(&moov(&[[5, 10]], None), 7).unwrap();
        assert_eq!(end, TrackEnd { samples: 5, ahead: 0, step: 10 });
        assert_eq!(track_end(&moov(&[[5, 10]], None), 8), None);
    }

    #[test]
    fn a_frame_decoded_early_may_be_the_last_one() {
        // Decoded at 0 10 20 30, shown at 20 60 30 40.
        let end = track_end(&moov(&[[4, 10]], Some(&[[1, 20], [1, 50], [2, 10]])), 7).unwrap();
        assert_eq!(end, TrackEnd { samples: 4, ahead: 30, step: 10 });
    }

    #[test]
    fn negative_shifts_move_the_track() {
        let end = track_end(&moov(&[[3, 10]], Some(&[[1, 0], [1, 10], [1, -10]])), 7).unwrap();
        assert_eq!(end.ahead, 10);
    }

    #[test]
    fn damaged_tables_end_quietly() {
        let whole = moov(&[[5, 10]], None);
        for length in 0..whole.len() {
            let _ = track_end(&whole[..length], 7);
        }
    }
}
