//! Which of the frames that come out of a decoder, in the order of display, are the wanted ones.

use std::collections::VecDeque;

/// A wanted frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// A time in ticks.
    pub(crate) ticks: i64,
    /// False: the frame shown then, the last one at or before it. True: the first one after it.
    pub(crate) after: bool,
}

impl Target {
    /// The frame shown at a time.
    pub(crate) fn shown_at(ticks: i64) -> Self {
        Self { ticks, after: false }
    }
}

/// Holds the latest frame until the next one shows for which targets it was the right one.
pub(crate) struct Gate<T> {
    targets: VecDeque<Target>,
    latest: Option<(i64, T)>,
    floor: i64,
    without: Vec<Target>,
}

impl<T> Gate<T> {
    /// Targets in rising order; frames before `floor` are not believed (they precede the keyframe that decoding began
    /// at and may lack what they refer to).
    pub(crate) fn new(mut targets: Vec<Target>, floor: i64) -> Self {
        targets.sort_by_key(|target| (target.ticks, target.after));
        Self { targets: targets.into(), latest: None, floor, without: Vec::new() }
    }

    /// True once all targets have their frame.
    pub(crate) fn is_done(&self) -> bool {
        self.targets.is_empty()
    }

    /// The first target that has no frame yet.
    pub(crate) fn next(&self) -> Option<Target> {
        self.targets.front().copied()
    }

    /// The last time that matters.
    pub(crate) fn last(&self) -> Option<Target> {
        self.targets.back().copied()
    }

    /// Takes the next frame; `emit` gets those targets that are decided by it.
    pub(crate) fn offer<E>(
        &mut self,
        shown_at: i64,
        frame: T,
        mut emit: impl FnMut(Target, i64, &T) -> Result<(), E>,
    ) -> Result<(), E> {
        if shown_at < self.floor {
            return Ok(());
        }
        while let Some(target) = self.targets.front().copied().filter(|target| shown_at > target.ticks) {
            match &self.latest {
                _ if target.after => emit(target, shown_at, &frame)?,
                Some((at, latest)) if *at <= target.ticks => emit(target, *at, latest)?,
                _ => self.without.push(target),
            }
            self.targets.pop_front();
        }
        // Frames that run backwards are damage; the later one in time stays.
        if self.latest.as_ref().is_none_or(|(at, _)| shown_at >= *at) {
            self.latest = Some((shown_at, frame));
        }
        Ok(())
    }

    /// No more frames: the last one stands for the targets at or after it. What has none comes back.
    pub(crate) fn finish<E>(
        mut self,
        mut emit: impl FnMut(Target, i64, &T) -> Result<(), E>,
    ) -> Result<Vec<Target>, E> {
        while let Some(target) = self.targets.pop_front() {
            match &self.latest {
                Some((at, latest)) if !target.after && *at <= target.ticks => emit(target, *at, latest)?,
                _ => self.without.push(target),
            }
        }
        Ok(self.without)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(targets: &[Target], frames: &[i64], floor: i64) -> (Vec<(i64, i64)>, Vec<i64>) {
        let (mut gate, mut found) = (Gate::new(targets.to_vec(), floor), Vec::new());
        for shown_at in frames {
            gate.offer(*shown_at, (), |target, at, ()| {
                found.push((target.ticks, at));
                Ok::<_, ()>(())
            })
            .unwrap();
        }
        let without = gate
            .finish(|target, at, ()| {
                found.push((target.ticks, at));
                Ok::<_, ()>(())
            })
            .unwrap();
        (found, without.into_iter().map(|target| target.ticks).collect())
    }

    #[test]
    fn the_frame_shown_at_a_time_is_the_last_one_at_or_before_it() {
        let targets = [4, 5, 9, 99].map(Target::shown_at);
        assert_eq!(pass(&targets, &[0, 5, 10, 15], 0), (vec![(4, 0), (5, 5), (9, 5), (99, 15)], vec![]));
    }

    #[test]
    fn times_before_the_first_frame_have_none() {
        let targets = [1, 6].map(Target::shown_at);
        assert_eq!(pass(&targets, &[5, 10], 0), (vec![(6, 5)], vec![1]));
    }

    #[test]
    fn frames_before_the_keyframe_are_not_believed() {
        let targets = [8, 12].map(Target::shown_at);
        assert_eq!(pass(&targets[1..], &[6, 8, 10, 14], 10), (vec![(12, 10)], vec![]));
    }

    #[test]
    fn the_frame_after_a_time_is_the_first_one_past_it() {
        let after = |ticks| Target { ticks, after: true };
        assert_eq!(pass(&[after(5), after(15)], &[0, 5, 10, 15], 0), (vec![(5, 10)], vec![15]));
    }
}
