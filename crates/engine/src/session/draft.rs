//! The draft's turn: dense frames of the segment in, the few that the target should see out.

use spectemp_types::{Chooser, DenseSample, Fallback, Round, TurnKind, TurnRole};

use super::{
    Conversation, Job,
    form::draft_endings,
    look::shown,
    target::last_thought,
    turn::{Ask, Work},
};
use crate::{
    Frame, FrameMode, Generation, SessionError,
    estimate::budget,
    numbers::numbers,
    parse::parse,
    prompt::{Prompts, Scene, Shown},
    sampling,
    strategy::Step,
};

/// What a draft's output names.
#[derive(Debug, Default, PartialEq)]
struct Picks {
    /// Places among the dense frames, in the order written, each once.
    places: Vec<usize>,
    fallbacks: Vec<Fallback>,
}

impl Job {
    /// Lines 10 and 11 of Algorithm 1: dense frames, and the draft's choice of them.
    pub(super) async fn draft_frames(
        &self,
        step: &Step,
        rounds: &[Round],
        conversation: &Conversation,
        work: &mut Work,
    ) -> Result<(Vec<Shown>, Chooser), SessionError> {
        let settings = &self.setup.spec.plan.settings;
        let prompts = self.draft_prompts.as_ref().ok_or(SessionError::NoDraft { strategy: "spectemp" })?;
        let dense = sampling::dense(step.span, settings.dense_fps, settings.dense_cap);
        // Both sizes at once: the chosen frames need no second read.
        let draft_size = budget(self.model(TurnRole::Draft)?.card(), settings.draft_pixels);
        let sizes = vec![self.target_size(), draft_size];
        let frames = self.fetch(dense.times_s, FrameMode::Exact, sizes, work).await?;
        let shown_to_draft = shown(prompts, &frames, 1, 0);
        work.dense = Some(DenseSample {
            fps: sampling::recorded(dense.fps),
            lowered: dense.lowered,
            frames: shown_to_draft.iter().map(|shown| shown.frame.clone()).collect(),
        });
        let think = rounds.last().map(last_thought).unwrap_or_default();
        let scene = Scene {
            frames: &shown_to_draft,
            round: step.no,
            segment: Some(step.span),
            think: &think,
            ..Scene::default()
        };
        let (places, chosen_by) = self.draft_turns(prompts, &scene, work).await?;
        let chosen: Vec<Frame> = places.into_iter().map(|place| frames[place].clone()).collect();
        Ok((shown(&self.target_prompts, &chosen, 0, conversation.shown_s.len()), chosen_by))
    }

    /// Places of the chosen frames, rising: the draft's, reminded once, else uniform ones.
    async fn draft_turns(
        &self,
        prompts: &Prompts,
        scene: &Scene<'_>,
        work: &mut Work,
    ) -> Result<(Vec<usize>, Chooser), SessionError> {
        let want = self.setup.spec.plan.settings.frames_per_round as usize;
        let mut conversation = Conversation::open(prompts)?;
        let mut reply = self.draft_turn(TurnKind::Regular, scene, &mut conversation, work).await?;
        let mut picks = read_picks(&reply, scene.frames, want);
        if picks.places.is_empty() {
            work.fall_back([Fallback::Reminded]);
            conversation.hear(&reply);
            reply = self.draft_turn(TurnKind::Reminder, scene, &mut conversation, work).await?;
            picks = read_picks(&reply, scene.frames, want);
        }
        let total = scene.frames.len();
        work.fall_back(picks.fallbacks);
        let mut places = picks.places;
        let chosen_by = if places.is_empty() { Chooser::UniformFallback } else { Chooser::Draft };
        let missing = want.min(total) - places.len();
        if missing > 0 {
            let fallback = if places.is_empty() { Fallback::UniformPicks } else { Fallback::TooFewFrames };
            work.fall_back([fallback]);
            let more = sampling::fill(total, &places, missing);
            places.extend(more);
        }
        places.sort_unstable();
        Ok((places, chosen_by))
    }

    /// One turn: asked and generated. A reminder shows no frame again.
    async fn draft_turn(
        &self,
        kind: TurnKind,
        scene: &Scene<'_>,
        conversation: &mut Conversation,
        work: &mut Work,
    ) -> Result<Generation, SessionError> {
        let prompts = self.draft_prompts.as_ref().ok_or(SessionError::NoDraft { strategy: "spectemp" })?;
        let frames = if kind == TurnKind::Reminder { &[] } else { scene.frames };
        conversation.ask(prompts, kind, &Scene { frames, ..scene.clone() })?;
        let want = self.setup.spec.plan.settings.frames_per_round as usize;
        let endings = draft_endings(scene.frames, want);
        self.speak(Ask { role: TurnRole::Draft, kind, messages: &conversation.messages, endings }, work).await
    }
}

/// The frames that an output names by their labels: at most `want`.
fn read_picks(generation: &Generation, frames: &[Shown], want: usize) -> Picks {
    let reply = parse(&generation.text);
    let range = reply.frame.clone().filter(|range| !reply.is_cut(range, generation.finish));
    let mut picks = Picks { fallbacks: reply.flaws, ..Picks::default() };
    let Some(range) = range else { return picks };
    let labels: Vec<f64> = frames.iter().map(|shown| shown.frame.label.parse().unwrap_or(f64::NAN)).collect();
    let (mut unknown, mut twice, mut more) = (false, false, false);
    for written in numbers(&generation.text[range]) {
        match labels.iter().position(|label| (label - written).abs() < 1e-9) {
            None => unknown = true,
            Some(place) if picks.places.contains(&place) => twice = true,
            Some(_) if picks.places.len() == want => more = true,
            Some(place) => picks.places.push(place),
        }
    }
    let flaws = [
        (unknown, Fallback::UnknownLabels),
        (twice, Fallback::DuplicateLabels),
        (more, Fallback::TooManyFrames),
    ];
    picks.fallbacks.extend(flaws.into_iter().filter_map(|(there, flaw)| there.then_some(flaw)));
    picks
}

#[cfg(test)]
mod tests {
    use spectemp_types::{FrameRef, StageTimes, TokenCounts, TurnFinish};

    use super::*;
    use crate::RgbImage;

    fn picks(text: &str) -> (Vec<usize>, Vec<Fallback>) {
        ended(text, TurnFinish::EndOfTurn)
    }

    fn ended(text: &str, finish: TurnFinish) -> (Vec<usize>, Vec<Fallback>) {
        let (counts, times) = (TokenCounts::default(), StageTimes::default());
        let text = text.to_owned();
        let generation = Generation { text, tokens: Vec::new(), finish, counts, times, scores: None };
        let shown = |label: &str| Shown {
            frame: FrameRef {
                requested_s: 0.0,
                pts_s: 0.0,
                stream_pts_s: 0.0,
                keyframe: false,
                label: label.to_owned(),
            },
            image: RgbImage { width: 1, height: 1, data: [0; 3].into() },
        };
        let frames = ["390", "391", "392.5", "393"].map(shown);
        let Picks { places, fallbacks } = read_picks(&generation, &frames, 2);
        (places, fallbacks)
    }

    #[test]
    fn labels_as_shown() {
        assert_eq!(picks("<think>a</think><frame>[391, 392.5]</frame>"), (vec![1, 2], vec![]));
        assert_eq!(picks("<frame>392.50s and 6:30</frame>"), (vec![2, 0], vec![]));
        assert_eq!(picks("<frame>391 391</frame>"), (vec![1], vec![Fallback::DuplicateLabels]));
        assert_eq!(picks("<frame>391, 500</frame>"), (vec![1], vec![Fallback::UnknownLabels]));
        assert_eq!(picks("<frame>393,392.5,391</frame>"), (vec![3, 2], vec![Fallback::TooManyFrames]));
        assert_eq!(picks("<frame>391, 39"), (vec![1], vec![Fallback::TagUnclosed, Fallback::UnknownLabels]));
        assert_eq!(ended("<frame>391, 39", TurnFinish::Length), (vec![], vec![Fallback::TagUnclosed]));
        assert_eq!(picks("<frame>all</frame>"), (vec![], vec![]));
        assert_eq!(picks("391, 392.5"), (vec![], vec![]));
    }
}
