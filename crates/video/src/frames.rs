//! A call: wanted times to frames. Times are grouped by the keyframe that decoding begins at, the bytes of all groups
//! are fetched at the same time, and groups are decoded side by side as soon as their bytes are there.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures::future::try_join_all;
use spectemp_engine::{Frame, FrameBatch, FrameMode, FrameRequest, RgbImage};
use tokio_util::sync::CancellationToken;

use crate::{
    VideoError,
    frame_cache::ImageKey,
    gate::Target,
    inner::{Asked, Found, Inner, Layout},
    meter::Call,
    open::blocking,
    run::{Goal, Images, Report, Run, Shot},
};

/// How often a time may fall back to an earlier keyframe.
const MOST_STEPS_BACK: usize = 64;

/// One wanted time.
#[derive(Clone, Debug)]
struct Slot {
    requested_s: f64,
    asked: Asked,
    pick: Pick,
    shot: Option<Shot>,
}

/// How its frame is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pick {
    /// The keyframe nearest to it, if that is near enough.
    Nearest,
    /// The target's frame, from a keyframe so many steps before the nearest one.
    Target(Target, usize),
}

/// A group of slots that one run serves: the keyframe's number, the run's goal, the slots.
struct Group {
    number: usize,
    goal: Goal,
    slots: Vec<usize>,
}

/// A call in progress.
struct Batch {
    inner: Arc<Inner>,
    call: Arc<Call>,
    images: Arc<Images>,
    slots: Vec<Slot>,
    warnings: Vec<String>,
}

impl Inner {
    /// The frames of a request.
    pub(crate) async fn frames(self: &Arc<Self>, request: FrameRequest) -> Result<FrameBatch, VideoError> {
        let call = Call::new(request.cancel.child_token());
        // Threads of a call that nobody waits for any more end.
        let _guard = CancellationToken::drop_guard(call.cancel.clone());
        let result = self.serve(&request, &call).await;
        self.add(call.figures());
        result
    }

    async fn serve(
        self: &Arc<Self>,
        request: &FrameRequest,
        call: &Arc<Call>,
    ) -> Result<FrameBatch, VideoError> {
        let mut batch = Batch::new(self, request, call)?;
        batch.recall();
        // Each turn gives a slot its frame or brings it one step nearer to it.
        let most = (MOST_STEPS_BACK + 4) * (batch.slots.len() + 1);
        for _ in 0..most {
            if batch.is_complete() && !batch.part_twins() {
                return Ok(batch.into_answer());
            }
            batch.turn().await?;
        }
        Err(self.broken(0, self.clock.start, "no frame can be found for some times".to_owned()))
    }
}

impl Inner {
    /// A file may end before it says.
    fn warn_of_end(&self, slot: &Slot, shot: &Shot, warnings: &mut Vec<String>) {
        let frame_s = self.probe.fps.filter(|fps| *fps > 0.0).map_or(1.0, |fps| 1.0 / fps);
        let (last_s, said) =
            (self.clock.since_start(shot.shown_at), slot.requested_s > self.probe.duration_s + 1e-6);
        if shot.last && !said && slot.requested_s > last_s + 2.0 * frame_s + 0.05 {
            warnings.push(format!(
                "time {:.3} s is past the last frame that the object holds ({last_s:.3} s), which stands for it",
                slot.requested_s
            ));
        }
    }
}

impl Batch {
    fn new(inner: &Arc<Inner>, request: &FrameRequest, call: &Arc<Call>) -> Result<Self, VideoError> {
        let tolerance = match request.mode {
            FrameMode::Exact => None,
            FrameMode::Keyframe { tolerance_s } => Some(inner.clock.span(tolerance_s.max(0.0))),
        };
        let mut warnings = Vec::new();
        let mut slots = Vec::with_capacity(request.times_s.len());
        for requested_s in request.times_s.iter().copied() {
            if !requested_s.is_finite() || requested_s < 0.0 {
                return Err(VideoError::Request {
                    uri: inner.uri().to_owned(),
                    cause: format!("{requested_s} is no time: give seconds from the first frame"),
                });
            }
            if requested_s > inner.probe.duration_s + 1e-6 {
                warnings.push(format!(
                    "time {requested_s:.3} s is past the end ({:.3} s): the last frame stands for it",
                    inner.probe.duration_s
                ));
            }
            let ticks = inner.clock.ticks(requested_s).max(inner.clock.start);
            let pick = match tolerance {
                // A container that can only be read from the start gains nothing by keyframes.
                Some(_) if inner.layout != Layout::Linear => Pick::Nearest,
                _ => Pick::Target(Target::shown_at(ticks), 0),
            };
            slots.push(Slot { requested_s, asked: Asked { ticks, tolerance }, pick, shot: None });
        }
        let sizes = request.sizes.iter().copied().map(Some).collect::<Vec<_>>();
        let sizes = if sizes.is_empty() { vec![None] } else { sizes };
        Ok(Self {
            inner: Arc::clone(inner),
            call: Arc::clone(call),
            images: Arc::new(Images { sizes, scaler: request.scaler }),
            slots,
            warnings,
        })
    }

    /// Answers what was answered before and is still in memory.
    fn recall(&mut self) {
        for slot in &mut self.slots {
            let Some(found) = self.inner.recall(slot.asked) else { continue };
            let (cache, object) = (&self.inner.options.frame_cache, self.inner.source.key());
            let image = |size| cache.get(&ImageKey::new(object, found.shown_at, size, self.images.scaler));
            let images: Option<Vec<RgbImage>> = self.images.sizes.iter().map(|size| image(*size)).collect();
            slot.shot = images.map(|images| Shot {
                target: None,
                shown_at: found.shown_at,
                key: found.key,
                last: false,
                images,
            });
        }
    }

    fn is_complete(&self) -> bool {
        self.slots.iter().all(|slot| slot.shot.is_some())
    }

    /// In keyframe mode two times never share a frame: of two that do, the one farther off looks on. True where there
    /// were such.
    fn part_twins(&mut self) -> bool {
        let mut holders: HashMap<i64, usize> = HashMap::new();
        let mut parted = false;
        for number in 0..self.slots.len() {
            let slot = &self.slots[number];
            let (Some(shot), Some(_)) = (&slot.shot, slot.asked.tolerance) else { continue };
            let shown_at = shot.shown_at;
            let Some(other) = holders.insert(shown_at, number) else { continue };
            let distance = |slot: usize| self.slots[slot].asked.ticks.abs_diff(shown_at);
            let (keeps, moves) =
                if distance(number) < distance(other) { (number, other) } else { (other, number) };
            holders.insert(shown_at, keeps);
            parted |= self.move_on(moves, shown_at);
        }
        parted
    }

    /// Takes a slot's frame away and lets it look elsewhere: the exact frame, then the one after, then the one before.
    fn move_on(&mut self, number: usize, shown_at: i64) -> bool {
        let slot = &mut self.slots[number];
        let next = match slot.pick {
            Pick::Nearest => Target::shown_at(slot.asked.ticks),
            Pick::Target(target, _) if !target.after && target.ticks >= slot.asked.ticks => {
                Target { ticks: shown_at, after: true }
            }
            Pick::Target(target, _) if target.after && target.ticks < self.inner.clock.end => {
                Target { ticks: shown_at, after: true }
            }
            Pick::Target(..) if shown_at > self.inner.clock.start => Target::shown_at(shown_at - 1),
            Pick::Target(..) => {
                let text = format!(
                    "the video has fewer frames than were asked for: {:.3} s repeats one",
                    slot.requested_s
                );
                if !self.warnings.contains(&text) {
                    self.warnings.push(text);
                }
                return false;
            }
        };
        slot.pick = Pick::Target(next, 0);
        slot.shot = None;
        true
    }

    /// Looks for the frames that are missing.
    async fn turn(&mut self) -> Result<(), VideoError> {
        if self.inner.layout == Layout::Linear {
            return self.pass().await;
        }
        self.locate().await?;
        let groups = self.groups();
        let threads = (self.inner.options.decode_threads / groups.len().max(1)).max(1);
        let jobs = self.jobs(&groups, threads).await?;
        let runs = jobs.into_iter().map(|job| self.make(job));
        let reports = try_join_all(runs).await?;
        for (group, report) in groups.into_iter().zip(reports) {
            self.take(group, report)?;
        }
        Ok(())
    }

    /// Where the container has no index: finds the keyframes around the times, several times side by side.
    async fn locate(&self) -> Result<(), VideoError> {
        let wanted: Vec<(i64, bool)> = self
            .slots
            .iter()
            .filter(|slot| slot.shot.is_none())
            .map(|slot| match slot.pick {
                Pick::Nearest => (slot.asked.ticks, true),
                Pick::Target(target, _) => (target.ticks, false),
            })
            .filter(|(ticks, _)| !self.inner.is_located(*ticks))
            .collect();
        let lanes = self.inner.options.decode_threads.max(4).min(wanted.len().max(1));
        let shares = wanted.chunks(wanted.len().div_ceil(lanes).max(1)).map(<[_]>::to_vec);
        try_join_all(shares.map(|share| {
            let (inner, call) = (Arc::clone(&self.inner), Arc::clone(&self.call));
            blocking(self.inner.uri().to_owned(), move || {
                let mut lane = inner.lane(&call)?;
                for (ticks, neighbour) in share {
                    inner.locate(&mut lane, ticks, neighbour, &call)?;
                }
                inner.lanes.give(lane);
                Ok(())
            })
        }))
        .await?;
        Ok(())
    }

    /// Groups the missing slots by the keyframe that their run begins at.
    fn groups(&mut self) -> Vec<Group> {
        let mut keyframes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut frames: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let index = self.inner.index();
        for (number, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.shot.is_none()) {
            if slot.pick == Pick::Nearest {
                let near = index.nearest(slot.asked.ticks).filter(|near| {
                    let distance = index.keyframes[*near].ticks.abs_diff(slot.asked.ticks);
                    slot.asked.tolerance.is_some_and(|most| distance <= most.unsigned_abs())
                });
                match near {
                    Some(near) => keyframes.entry(near).or_default().push(number),
                    None => slot.pick = Pick::Target(Target::shown_at(slot.asked.ticks), 0),
                }
            }
            if let Pick::Target(target, back) = slot.pick {
                let start = index.at_or_before(target.ticks).unwrap_or(0).saturating_sub(back);
                frames.entry(start).or_default().push(number);
            }
        }
        let exact = self.inner.layout != Layout::Samples;
        let keyframes = keyframes.into_iter().map(|(number, slots)| {
            let from = if exact { index.keyframes[number].ticks } else { i64::MIN };
            Group { number, goal: Goal::Keyframe { from }, slots }
        });
        let frames = frames.into_iter().map(|(number, slots)| {
            let targets = slots.iter().filter_map(|slot| match self.slots[*slot].pick {
                Pick::Target(target, _) => Some(target),
                Pick::Nearest => None,
            });
            let mut targets: Vec<Target> = targets.collect();
            targets.sort_by_key(|target| (target.ticks, target.after));
            targets.dedup();
            Group { number, goal: Goal::Frames(targets), slots }
        });
        keyframes.chain(frames).collect()
    }

    /// Runs with the bytes that they will read.
    async fn jobs(&self, groups: &[Group], threads: usize) -> Result<Vec<Job>, VideoError> {
        let wanted: Vec<(usize, Goal)> =
            groups.iter().map(|group| (group.number, group.goal.clone())).collect();
        let (inner, call) = (Arc::clone(&self.inner), Arc::clone(&self.call));
        let images = Arc::clone(&self.images);
        blocking(self.inner.uri().to_owned(), move || {
            let lane = inner.lane(&call)?;
            let index = inner.index().clone();
            let jobs = wanted.into_iter().map(|(number, goal)| {
                let spans = inner.spans(&lane, &index, number, &goal)?;
                let start = inner.start(&index, number);
                let (images, pins) = (Arc::clone(&images), Arc::default());
                Ok(Job { run: Run { start, is_first: number == 0, goal, threads, images, pins }, spans })
            });
            let jobs = jobs.collect();
            inner.lanes.give(lane);
            jobs
        })
        .await
    }

    /// Fetches, then decodes on a thread of its own.
    async fn make(&self, job: Job) -> Result<Report, VideoError> {
        let inner = Arc::clone(&self.inner);
        let most = (inner.options.window_bytes as u64 / 2).max(1 << 20);
        let (spans, bytes) = job.spans_within(most);
        let cancelled = || VideoError::Cancelled { uri: inner.uri().to_owned() };
        let permits = (bytes >> 10).clamp(1, (inner.options.window_bytes as u64 >> 10).max(1));
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let _window = inner.window.acquire_many(permits).await.map_err(|_| cancelled())?;
        let pins = Arc::new(inner.source.prefetch(&spans, &self.call).await?);
        let _slot = inner.lanes.slots.acquire().await.map_err(|_| cancelled())?;
        let (shared, call, run) = (Arc::clone(&inner), Arc::clone(&self.call), Run { pins, ..job.run });
        blocking(inner.uri().to_owned(), move || {
            let mut lane = shared.lane(&call)?;
            let report = shared.run(&mut lane, &run, &call)?;
            lane.control().begin(&call, Arc::default());
            shared.lanes.give(lane);
            Ok(report)
        })
        .await
    }

    /// One pass over a container that can only be read from the start.
    async fn pass(&mut self) -> Result<(), VideoError> {
        let slots: Vec<usize> =
            (0..self.slots.len()).filter(|number| self.slots[*number].shot.is_none()).collect();
        let targets: Vec<Target> = slots
            .iter()
            .filter_map(|number| match self.slots[*number].pick {
                Pick::Target(target, _) => Some(target),
                Pick::Nearest => None,
            })
            .collect();
        let (inner, call, images) =
            (Arc::clone(&self.inner), Arc::clone(&self.call), Arc::clone(&self.images));
        let wanted = targets.clone();
        let report =
            blocking(self.inner.uri().to_owned(), move || inner.pass(wanted, &images, &call)).await?;
        self.take(Group { number: 0, goal: Goal::Frames(targets), slots }, report)
    }

    /// Gives a report's frames to their slots; those without one look on.
    fn take(&mut self, group: Group, report: Report) -> Result<(), VideoError> {
        for number in group.slots {
            let slot = &mut self.slots[number];
            let Pick::Target(target, back) = slot.pick else {
                let near = report.shots.first().filter(|shot| {
                    let distance = shot.shown_at.abs_diff(slot.asked.ticks);
                    slot.asked.tolerance.is_some_and(|most| distance <= most.unsigned_abs())
                });
                match near {
                    Some(shot) => slot.shot = Some(shot.clone()),
                    None => slot.pick = Pick::Target(Target::shown_at(slot.asked.ticks), 0),
                }
                continue;
            };
            if let Some(shot) = report.shots.iter().find(|shot| shot.target == Some(target)) {
                slot.shot = Some(shot.clone());
                self.inner.warn_of_end(slot, shot, &mut self.warnings);
            } else if target.after {
                // Nothing comes after: the one before, then.
                slot.pick = Pick::Target(Target::shown_at(target.ticks.saturating_sub(1)), 0);
            } else if group.number > 0 && back < MOST_STEPS_BACK {
                slot.pick = Pick::Target(target, back + 1);
            } else {
                let (at, cause) = report
                    .damage
                    .clone()
                    .unwrap_or_else(|| (0, "no frame can be decoded for this time".to_owned()));
                return Err(self.inner.broken(at, target.ticks, cause));
            }
        }
        if let Some((at, cause)) = report.damage {
            let text = format!("{}: damaged near byte {at}: {cause}", self.inner.uri());
            if !self.warnings.contains(&text) {
                self.warnings.push(text);
            }
        }
        Ok(())
    }

    fn into_answer(self) -> FrameBatch {
        let clock = self.inner.clock;
        let mut frames = Vec::with_capacity(self.slots.len());
        for slot in self.slots {
            let Some(shot) = slot.shot else { continue };
            self.inner.remember(slot.asked, Found { shown_at: shot.shown_at, key: shot.key });
            frames.push(Frame {
                requested_s: slot.requested_s,
                pts_s: clock.since_start(shot.shown_at),
                stream_pts_s: clock.seconds(shot.shown_at),
                keyframe: shot.key,
                images: shot.images,
            });
        }
        FrameBatch {
            frames,
            io: self.call.figures(),
            fetch_ms: self.call.fetching.milliseconds(),
            decode_ms: self.call.decoding.milliseconds(),
            warnings: self.warnings,
        }
    }
}

/// A run and the bytes that it will read.
struct Job {
    run: Run,
    spans: Vec<std::ops::Range<u64>>,
}

impl Job {
    /// The first `most` bytes of the spans, and how many these are; the rest is read as it is needed.
    fn spans_within(&self, most: u64) -> (Vec<std::ops::Range<u64>>, u64) {
        let mut left = most;
        let mut spans = Vec::with_capacity(self.spans.len());
        for span in &self.spans {
            let length = (span.end - span.start).min(left);
            if length == 0 {
                break;
            }
            spans.push(span.start..span.start + length);
            left -= length;
        }
        (spans, most - left)
    }
}
