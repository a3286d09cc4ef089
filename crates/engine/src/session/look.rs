//! The new frames of a round.

use spectemp_types::{Chooser, FrameRef, Round, Stage, StageSpan};

use super::{Conversation, Job, turn::Work};
use crate::{
    Frame, FrameError, FrameMode, FrameRequest, PixelBudget, RgbImage, SessionError,
    estimate::budget,
    prompt::{Prompts, Shown},
    sampling::{self, recorded},
    strategy::{Look, Step},
};

/// Frames lie farther apart than this, and rounding errors of their times do not.
pub(super) const FRAME_SLACK_S: f64 = 1e-5;

impl Job {
    /// The frames that a round shows to the target, and who chose them.
    pub(super) async fn look(
        &self,
        step: &Step,
        rounds: &[Round],
        conversation: &Conversation,
        work: &mut Work,
    ) -> Result<(Vec<Shown>, Chooser), SessionError> {
        let settings = &self.setup.spec.plan.settings;
        let exact = FrameMode::Exact;
        let (times, mode) = match step.look {
            Look::Whole => (sampling::uniform(step.span, settings.initial_frames), self.near_keyframes()),
            Look::Uniform => (sampling::uniform(step.span, settings.frames_per_round), exact),
            Look::Weighted => {
                let intervals = self.intervals(rounds);
                (sampling::weighted(&intervals, self.duration_s, settings.initial_frames), exact)
            }
            Look::Drafted => return self.draft_frames(step, rounds, conversation, work).await,
            Look::Nothing => return Ok((self.shown_again(rounds, work).await?, Chooser::None)),
        };
        let frames = self.fetch(times, mode, vec![self.target_size()], work).await?;
        Ok((shown(&self.target_prompts, &frames, 0, conversation.shown_s.len()), Chooser::Uniform))
    }

    /// The frames that the extra turn shows: none where they are in the context, else those of the last round.
    async fn shown_again(&self, rounds: &[Round], work: &mut Work) -> Result<Vec<Shown>, SessionError> {
        let last = rounds.iter().rev().find(|round| !round.frames.is_empty());
        let Some(last) = last.filter(|_| !self.keeps_history()) else { return Ok(Vec::new()) };
        let frames: Vec<&FrameRef> = last.frames.iter().collect();
        let images = self.again(&frames, work).await?;
        let image = |frame: &FrameRef| images.get(&frame.pts_s.to_bits()).cloned();
        let shown = |frame: &FrameRef| Some(Shown { frame: frame.clone(), image: image(frame)? });
        Ok(last.frames.iter().filter_map(shown).collect())
    }

    fn near_keyframes(&self) -> FrameMode {
        let settings = &self.setup.spec.plan.settings;
        let step_s = self.duration_s / f64::from(settings.initial_frames);
        FrameMode::Keyframe { tolerance_s: settings.keyframe_tolerance * step_s }
    }

    pub(super) fn target_size(&self) -> PixelBudget {
        budget(self.setup.target.card(), self.setup.spec.plan.settings.target_pixels)
    }

    /// Gets frames and books what they cost. They come back rising, each once: two times may share a frame where the
    /// video has fewer.
    pub(super) async fn fetch(
        &self,
        times_s: Vec<f64>,
        mode: FrameMode,
        sizes: Vec<PixelBudget>,
        work: &mut Work,
    ) -> Result<Vec<Frame>, SessionError> {
        self.go_on()?;
        let (wanted, images) = (times_s.len(), sizes.len());
        let scaler = self.setup.spec.plan.settings.scaler;
        let cancel = self.setup.cancel.clone();
        let began_ms = self.elapsed_ms();
        let batch = self.setup.frames.frames(FrameRequest { times_s, mode, sizes, scaler, cancel }).await?;
        let ended_ms = self.elapsed_ms();
        work.timeline.push(StageSpan { stage: Stage::Frames, turn: None, began_ms, ended_ms });
        work.io += batch.io;
        work.times.fetch_ms += batch.fetch_ms;
        work.times.decode_ms += batch.decode_ms;
        work.warnings.extend(batch.warnings);
        let mut frames = batch.frames;
        if frames.is_empty() || frames.iter().any(|frame| frame.images.len() != images) {
            let cause = format!(
                "video gave {} frames for {wanted} times, each must have {images} images",
                frames.len()
            );
            return Err(FrameError::Permanent(cause).into());
        }
        frames.sort_by(|a, b| a.pts_s.total_cmp(&b.pts_s));
        frames.dedup_by(|a, b| a.pts_s == b.pts_s);
        Ok(frames)
    }
}

/// Frames with the labels of a template; `image` is the number of the size that its model sees.
pub(super) fn shown(prompts: &Prompts, frames: &[Frame], image: usize, earlier: usize) -> Vec<Shown> {
    let times: Vec<f64> = frames.iter().map(|frame| frame.pts_s).collect();
    let labels = prompts.labels.labels(&times, earlier);
    frames.iter().zip(labels).map(|(frame, label)| one_shown(frame, &frame.images[image], label)).collect()
}

fn one_shown(frame: &Frame, image: &RgbImage, label: String) -> Shown {
    let frame = FrameRef {
        requested_s: recorded(frame.requested_s),
        pts_s: recorded(frame.pts_s),
        stream_pts_s: recorded(frame.stream_pts_s),
        keyframe: frame.keyframe,
        label,
    };
    Shown { frame, image: image.clone() }
}
