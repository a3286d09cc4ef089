//! Ranges to blocks: which blocks a set of ranges needs, which of them are missing, and as few requests as make sense
//! for those, all at the same time. What was fetched is pinned for the caller, so that the cache's limit cannot take
//! away what a decoder is about to read.
//!
//! Blocks that another call is fetching already are waited for, not fetched twice.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;

use crate::{
    BLOCK_BYTES, VideoError,
    meter::Call,
    source::{Source, blocks_of},
};

/// Gaps of up to this many blocks are read along: a request costs more than the bytes.
const GAP_BLOCKS: u64 = 4;
/// Longest request.
const RUN_BLOCKS: u64 = (4 << 20) / BLOCK_BYTES;

/// Blocks that stay in memory as long as this lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    blocks: HashMap<u64, Bytes>,
}

impl Pins {
    pub(crate) fn get(&self, block: u64) -> Option<&Bytes> {
        self.blocks.get(&block)
    }

    pub(crate) fn insert(&mut self, block: u64, bytes: Bytes) {
        self.blocks.insert(block, bytes);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Bytes)> {
        self.blocks.iter().map(|(number, bytes)| (*number, bytes))
    }

    /// The bytes of a range, as far as all its blocks are here.
    pub(crate) fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let Some(block) = self.get(at / BLOCK_BYTES) else { break };
            let from = (at % BLOCK_BYTES) as usize;
            if from >= block.len() {
                break;
            }
            let upto = block.len().min(from + (range.end - at) as usize);
            bytes.extend_from_slice(&block[from..upto]);
            at += (upto - from) as u64;
        }
        bytes
    }
}

/// Blocks that some call is fetching now.
#[derive(Debug)]
pub(crate) struct InFlight {
    blocks: Mutex<HashSet<u64>>,
    landed: watch::Sender<u64>,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { blocks: Mutex::default(), landed: watch::Sender::new(0) }
    }
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes those of the blocks that nobody fetches.
    fn take(&self, wanted: &[u64]) -> Vec<u64> {
        let mut blocks = self.lock();
        wanted.iter().copied().filter(|block| blocks.insert(*block)).collect()
    }

    fn give_back(&self, mine: &[u64]) {
        let mut blocks = self.lock();
        for block in mine {
            blocks.remove(block);
        }
        drop(blocks);
        self.landed.send_modify(|count| *count += 1);
    }
}

/// Gives blocks back when the fetch ends, however it ends.
struct Taken<'a>(&'a InFlight, Vec<u64>);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.give_back(&self.1);
    }
}

impl Source {
    /// Brings all blocks of the ranges into memory and pins them.
    pub(crate) async fn prefetch(&self, ranges: &[Range<u64>], call: &Call) -> Result<Pins, VideoError> {
        let wanted = blocks_in(ranges, self.size());
        let mut pins = Pins::default();
        loop {
            // Subscribed before looking, so that a landing in between is not missed.
            let mut landed = self.in_flight.landed.subscribe();
            let missing = self.pin_known(&wanted, &mut pins).await;
            if missing.is_empty() {
                return Ok(pins);
            }
            let mine = Taken(&self.in_flight, self.in_flight.take(&missing));
            if mine.1.is_empty() {
                tokio::select! {
                    () = call.cancel.cancelled() => return Err(VideoError::Cancelled { uri: self.uri().into() }),
                    _ = landed.changed() => continue,
                }
            }
            self.fetch(&mine.1, call, &mut pins).await?;
        }
    }

    /// [`Self::prefetch`] of one range.
    pub(crate) async fn prefetch_range(&self, range: Range<u64>, call: &Call) -> Result<Pins, VideoError> {
        self.prefetch(std::slice::from_ref(&range), call).await
    }

    /// Pins what memory or tier hold; the rest comes back.
    async fn pin_known(&self, wanted: &BTreeSet<u64>, pins: &mut Pins) -> Vec<u64> {
        let mut missing = Vec::new();
        for block in wanted.iter().copied().filter(|block| pins.get(*block).is_none()).collect::<Vec<_>>() {
            match self.cache.get(self.key(), block) {
                Some(bytes) => pins.insert(block, bytes),
                None => missing.push(block),
            }
        }
        if missing.is_empty() || !self.cache.has_tier() {
            return missing;
        }
        let (cache, key, asked) = (Arc::clone(&self.cache), self.key().clone(), missing.clone());
        let looked_up = tokio::task::spawn_blocking(move || {
            asked.into_iter().map(|block| (block, cache.get_from_tier(&key, block))).collect::<Vec<_>>()
        });
        let Ok(found) = looked_up.await else { return missing };
        found
            .into_iter()
            .filter_map(|(block, bytes)| match bytes {
                Some(bytes) => {
                    pins.insert(block, bytes);
                    None
                }
                None => Some(block),
            })
            .collect()
    }

    async fn fetch(&self, blocks: &[u64], call: &Call, pins: &mut Pins) -> Result<(), VideoError> {
        let mut requests: FuturesUnordered<_> =
            runs(blocks).into_iter().map(|run| self.fetch_run(run, call)).collect();
        while let Some(run) = requests.next().await {
            let (at, bytes) = run?;
            let blocks: Vec<_> = blocks_of(at, &bytes, self.size()).collect();
            for (number, block) in &blocks {
                self.cache.insert(self.key(), *number, block.clone());
                pins.insert(*number, block.clone());
            }
            self.hand_to_tier(blocks);
        }
        Ok(())
    }

    async fn fetch_run(&self, run: Range<u64>, call: &Call) -> Result<(u64, Bytes), VideoError> {
        let _permit = self.requests.acquire().await;
        let at = run.start * BLOCK_BYTES;
        let bytes = self.get(at..(run.end * BLOCK_BYTES).min(self.size()), call).await?;
        Ok((at, bytes))
    }

    fn hand_to_tier(&self, blocks: Vec<(u64, Bytes)>) {
        if self.cache.has_tier() {
            let (cache, key) = (Arc::clone(&self.cache), self.key().clone());
            self.runtime.spawn_blocking(move || {
                for (number, block) in blocks {
                    cache.insert_in_tier(&key, number, block);
                }
            });
        }
    }
}

/// The blocks that ranges touch, as far as the object reaches.
fn blocks_in(ranges: &[Range<u64>], size: u64) -> BTreeSet<u64> {
    let within =
        ranges.iter().map(|range| range.start..range.end.min(size)).filter(|range| !range.is_empty());
    within.flat_map(|range| range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)).collect()
}

/// Rising block numbers as requests: near ones together, none longer than [`RUN_BLOCKS`].
fn runs(blocks: &[u64]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(run) if *block <= run.end + GAP_BLOCKS && block + 1 - run.start <= RUN_BLOCKS => {
                run.end = block + 1;
            }
            _ => runs.push(*block..block + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    #[test]
    fn near_blocks_become_one_request_and_long_ones_are_split() {
        assert_eq!(runs(&[1, 2, 3, 7, 13]), vec![1..8, 13..14]);
        let long: Vec<u64> = (0..RUN_BLOCKS + 10).collect();
        assert_eq!(runs(&long), vec![0..RUN_BLOCKS, RUN_BLOCKS..RUN_BLOCKS + 10]);
        assert!(runs(&[]).is_empty());
    }

    #[test]
    fn ranges_touch_blocks_up_to_the_objects_end() {
        let blocks =
            blocks_in(&[0..1, BLOCK_BYTES - 1..BLOCK_BYTES + 1, 5 * BLOCK_BYTES..u64::MAX], 6 * BLOCK_BYTES);
        assert_eq!(blocks.into_iter().collect::<Vec<_>>(), vec![0, 1, 5]);
        #[expect(clippy::reversed_empty_ranges, reason = "a range beyond the end is what is tested")]
        let beyond = 10..5;
        let nothing = blocks_in(slice::from_ref(&beyond), 4);
        assert!(nothing.is_empty());
    }

    #[test]
    fn pinned_blocks_give_their_bytes_as_far_as_they_reach() {
        let mut pins = Pins::default();
        pins.insert(0, Bytes::from(vec![1; BLOCK_BYTES as usize]));
        pins.insert(1, Bytes::from(vec![2; 10]));
        assert_eq!(pins.bytes(BLOCK_BYTES - 2..BLOCK_BYTES + 3), vec![1, 1, 2, 2, 2]);
        assert_eq!(pins.bytes(BLOCK_BYTES + 8..BLOCK_BYTES + 90), vec![2, 2]);
    }
}
