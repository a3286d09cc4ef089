//! Keyframes: time to byte offset. A whole table where the container has one, what bisecting found elsewhere.

use serde::{Deserialize, Serialize};

/// A keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyframe {
    /// When it is shown, on the container's clock, in ticks of the stream. Where a container tells decoding times only,
    /// this is the decoding time plus the delay of the stream's first keyframe.
    pub ticks: i64,
    /// First byte to read.
    pub offset: u64,
    /// Bytes of the keyframe itself, 0 where the container does not tell.
    pub size: u32,
    /// The next keyframe in this list is the next one in the video: nothing is unknown in between.
    pub next_known: bool,
}

/// Keyframes in rising order of time. Written as columns of differences, which keeps a record small.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Columns", into = "Columns")]
pub struct KeyframeIndex {
    /// The keyframes.
    pub keyframes: Vec<Keyframe>,
}

/// What is written: each value is the difference to the one before.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Columns {
    ticks: Vec<i64>,
    offset: Vec<i64>,
    size: Vec<u32>,
    /// Numbers of the keyframes after which something is unknown.
    gaps: Vec<usize>,
}

impl From<KeyframeIndex> for Columns {
    fn from(index: KeyframeIndex) -> Self {
        let offset = |number: usize| index.keyframes[number].offset.cast_signed();
        let ticks = |number: usize| index.keyframes[number].ticks;
        let numbers = || 0..index.keyframes.len();
        let steps = |value: &dyn Fn(usize) -> i64| {
            let before = |number: usize| number.checked_sub(1).map_or(0, value);
            numbers().map(|number| value(number).wrapping_sub(before(number))).collect()
        };
        Self {
            ticks: steps(&ticks),
            offset: steps(&offset),
            size: index.keyframes.iter().map(|keyframe| keyframe.size).collect(),
            gaps: numbers().filter(|number| !index.keyframes[*number].next_known).collect(),
        }
    }
}

impl From<Columns> for KeyframeIndex {
    fn from(columns: Columns) -> Self {
        let (mut ticks, mut offset) = (0i64, 0i64);
        let rows = columns.ticks.iter().zip(&columns.offset).zip(&columns.size).enumerate();
        let keyframes = rows.map(|(number, ((step, stride), size))| {
            (ticks, offset) = (ticks.wrapping_add(*step), offset.wrapping_add(*stride));
            let next_known = columns.gaps.binary_search(&number).is_err();
            Keyframe { ticks, offset: offset.cast_unsigned(), size: *size, next_known }
        });
        Self { keyframes: keyframes.collect() }
    }
}

impl KeyframeIndex {
    /// Number of the last keyframe at or before a time; the first one for earlier times.
    pub(crate) fn at_or_before(&self, ticks: i64) -> Option<usize> {
        let after = self.keyframes.partition_point(|keyframe| keyframe.ticks <= ticks);
        (!self.keyframes.is_empty()).then(|| after.saturating_sub(1))
    }

    /// Number of the keyframe nearest to a time, the earlier of two equally near ones.
    pub(crate) fn nearest(&self, ticks: i64) -> Option<usize> {
        let before = self.at_or_before(ticks)?;
        let distance = |number: usize| self.keyframes[number].ticks.abs_diff(ticks);
        let after = before + 1;
        let later = after < self.keyframes.len() && distance(after) < distance(before);
        Some(if later { after } else { before })
    }

    /// Adds what was found. `next` is the keyframe that follows at once, where that is known.
    pub(crate) fn learn(&mut self, found: Keyframe) {
        match self.keyframes.binary_search_by_key(&found.ticks, |keyframe| keyframe.ticks) {
            Ok(number) => {
                let known = &mut self.keyframes[number];
                known.next_known |= found.next_known;
                known.size = known.size.max(found.size);
            }
            Err(number) => {
                // A keyframe between two neighbours that were thought adjacent would be news; trust what was read.
                self.keyframes.insert(number, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(ticks: &[i64]) -> KeyframeIndex {
        let keyframe = |ticks: &i64| Keyframe {
            ticks: *ticks,
            offset: (*ticks * 10) as u64,
            size: 0,
            next_known: *ticks < 20,
        };
        KeyframeIndex { keyframes: ticks.iter().map(keyframe).collect() }
    }

    #[test]
    fn times_find_their_keyframe() {
        let index = index(&[10, 20, 30]);
        assert_eq!(index.at_or_before(9), Some(0));
        assert_eq!(index.at_or_before(20), Some(1));
        assert_eq!(index.at_or_before(99), Some(2));
        assert_eq!(index.nearest(15), Some(0));
        assert_eq!(index.nearest(16), Some(1));
        assert_eq!(KeyframeIndex::default().at_or_before(1), None);
    }

    #[test]
    fn an_index_is_written_as_differences_and_comes_back() {
        let index = index(&[-5, 10, 30]);
        let text = serde_json::to_string(&index).unwrap();
        assert!(text.starts_with(r#"{"ticks":[-5,15,20],"#), "{text}");
        assert_eq!(serde_json::from_str::<KeyframeIndex>(&text).unwrap(), index);
    }

    #[test]
    fn what_is_learned_twice_is_kept_once() {
        let mut index = index(&[10, 30]);
        index.learn(Keyframe { ticks: 20, offset: 200, size: 7, next_known: false });
        index.learn(Keyframe { ticks: 20, offset: 200, size: 0, next_known: true });
        assert_eq!(index.keyframes.len(), 3);
        assert_eq!(index.keyframes[1], Keyframe { ticks: 20, offset: 200, size: 7, next_known: true });
    }
}
