//! Keyframes of containers without an index: bisect the bytes by the times found there. Each look enters the container
//! at a byte and reads on to the next keyframe; what is found is kept, so the next call looks less.
//!
//! A run that begins at any keyframe at or before the target is right; a near one is only cheaper. So the search ends
//! as soon as the bytes in question are few.

use std::sync::Arc;

use crate::{
    Keyframe, VideoError,
    demux::Demuxer,
    fetch::Pins,
    inner::Inner,
    meter::Call,
    restart::{enter, first_entry},
    run::packet_time,
};

/// Fewer bytes than this are read through.
const NEAR_BYTES: u64 = 768 << 10;
/// Looks per target; interpolation needs three or four.
const MOST_LOOKS: u32 = 48;

/// What is known around a target.
struct Bracket {
    low: Keyframe,
    high_offset: u64,
    high_ticks: i64,
}

impl Inner {
    /// Learns a keyframe at or shortly before a time, and with `neighbour` the one that follows it. Blocks.
    pub(crate) fn locate(
        &self,
        demuxer: &mut Demuxer,
        ticks: i64,
        neighbour: bool,
        call: &Arc<Call>,
    ) -> Result<(), VideoError> {
        let Some(mut bracket) = self.bracket(ticks) else { return Ok(()) };
        for look in 0..MOST_LOOKS {
            let bytes = bracket.high_offset.saturating_sub(bracket.low.offset);
            if bracket.low.next_known || bytes <= NEAR_BYTES {
                break;
            }
            let guess = bracket.guess(ticks, look);
            match self.keyframe_from(demuxer, guess..bracket.high_offset, call)? {
                Some(found) if found.ticks <= ticks && found.ticks > bracket.low.ticks => {
                    self.index().learn(found);
                    bracket.low = found;
                }
                Some(found) if found.ticks > ticks => {
                    self.index().learn(found);
                    (bracket.high_offset, bracket.high_ticks) = (guess, found.ticks);
                }
                _ => bracket.high_offset = guess,
            }
        }
        if neighbour && !bracket.low.next_known {
            self.learn_next(demuxer, bracket.low, call)?;
        }
        Ok(())
    }

    /// True where nothing is left to look for around a time.
    pub(crate) fn is_located(&self, ticks: i64) -> bool {
        self.bracket(ticks).is_none()
    }

    /// None where the neighbours of the time are known already.
    fn bracket(&self, ticks: i64) -> Option<Bracket> {
        let index = self.index();
        let number = index.at_or_before(ticks)?;
        let low = index.keyframes[number];
        let high = index.keyframes.get(number + 1);
        (!low.next_known).then(|| Bracket {
            low,
            high_offset: high.map_or(self.source.size(), |high| high.offset),
            high_ticks: high.map_or(self.clock.end.max(low.ticks + 1), |high| high.ticks),
        })
    }

    /// The first keyframe behind a place to enter in a range of bytes.
    fn keyframe_from(
        &self,
        demuxer: &mut Demuxer,
        within: std::ops::Range<u64>,
        call: &Arc<Call>,
    ) -> Result<Option<Keyframe>, VideoError> {
        let Some(entry) = first_entry(&self.source, call, self.layout, within)? else { return Ok(None) };
        self.enter_limited(demuxer, entry, call)?;
        while let Some(packet) = demuxer.read()? {
            let (true, Some(ticks)) = (packet.is_key(), packet_time(&packet)) else { continue };
            let own = u64::try_from(packet.position()).ok();
            let offset = match self.layout {
                crate::Layout::Stream => own.filter(|own| *own >= entry).unwrap_or(entry),
                _ => entry,
            };
            let size = u32::try_from(packet.size()).unwrap_or(0);
            return Ok(Some(Keyframe { ticks, offset, size, next_known: false }));
        }
        Ok(None)
    }

    /// Reads on from a keyframe to the next one.
    fn learn_next(&self, demuxer: &mut Demuxer, low: Keyframe, call: &Arc<Call>) -> Result<(), VideoError> {
        self.enter_limited(demuxer, low.offset, call)?;
        let mut begun = false;
        while let Some(packet) = demuxer.read()? {
            let (true, Some(ticks)) = (packet.is_key(), packet_time(&packet)) else { continue };
            if !begun || ticks <= low.ticks {
                begun = true;
                continue;
            }
            let own = u64::try_from(packet.position()).unwrap_or(low.offset);
            let offset = match self.layout {
                crate::Layout::Stream => own.max(low.offset),
                // The fragment or cluster that holds it begins before it.
                layout => entry_before(self, call, layout, low.offset, own)?,
            };
            let mut index = self.index();
            index.learn(Keyframe {
                ticks,
                offset,
                size: u32::try_from(packet.size()).unwrap_or(0),
                next_known: false,
            });
            index.learn(Keyframe { next_known: true, ..low });
            return Ok(());
        }
        self.index().learn(Keyframe { next_known: true, ..low });
        Ok(())
    }

    fn enter_limited(&self, demuxer: &mut Demuxer, offset: u64, call: &Arc<Call>) -> Result<(), VideoError> {
        enter(demuxer, self.layout, offset, (&self.demux, call, Arc::new(Pins::default())))?;
        demuxer.control().set_fetch_limit(self.fetch_limit(call));
        Ok(())
    }

    /// Without leave to scan, one piece of work fetches a quarter of the object at most (or 128 MiB).
    pub(crate) fn fetch_limit(&self, call: &Call) -> Option<u64> {
        let share = (self.source.size() / 4).max(128 << 20);
        (!self.options.allow_scan).then(|| call.bytes().saturating_add(share))
    }
}

/// The last entry in front of a byte, from a known one on.
fn entry_before(
    inner: &Inner,
    call: &Call,
    layout: crate::Layout,
    from: u64,
    upto: u64,
) -> Result<u64, VideoError> {
    let mut last = from;
    while let Some(entry) = first_entry(&inner.source, call, layout, last + 1..upto)? {
        last = entry;
    }
    Ok(last)
}

impl Bracket {
    /// Where to look: where the time should be if bytes were spread evenly, a little before; after some looks that
    /// did not help, the middle.
    fn guess(&self, ticks: i64, look: u32) -> u64 {
        let bytes = self.high_offset - self.low.offset;
        let share = if look % 3 == 2 {
            0.5
        } else {
            let span = self.high_ticks.saturating_sub(self.low.ticks).max(1) as f64;
            (ticks.saturating_sub(self.low.ticks) as f64 / span).clamp(0.0, 1.0)
        };
        let back = (bytes / 16).min(NEAR_BYTES / 2);
        let guess = self.low.offset + ((bytes as f64 * share) as u64).saturating_sub(back);
        guess.clamp(self.low.offset + NEAR_BYTES / 8, self.high_offset - NEAR_BYTES / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bracket(low: u64, high: u64) -> Bracket {
        let low = Keyframe { ticks: 0, offset: low, size: 0, next_known: false };
        Bracket { low, high_offset: high, high_ticks: 1000 }
    }

    #[test]
    fn guesses_stay_inside_and_follow_the_time() {
        let wide = bracket(1 << 20, 1 << 30);
        assert!(wide.guess(500, 0) > 400 << 20 && wide.guess(500, 0) < 520 << 20);
        for (ticks, look) in [(-5, 0), (0, 0), (999, 1), (5000, 1), (500, 2)] {
            let narrow = bracket(1 << 20, (1 << 20) + NEAR_BYTES + 1);
            let guess = narrow.guess(ticks, look);
            assert!(guess > narrow.low.offset && guess < narrow.high_offset);
        }
    }
}
