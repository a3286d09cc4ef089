//! One planned video and the questions about it.

use serde::{Deserialize, Serialize};
use spectemp_types::TimeSpan;

use crate::{Colour, Painter, Scene, rng::Source, scene::cut};

/// A question whose answer is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DemoQuestion {
    /// What is asked.
    pub text: String,
    /// The digit that is the answer.
    pub answer: String,
    /// Which scene it is about.
    pub scene: usize,
    /// When the digit is shown.
    pub evidence: TimeSpan,
}

impl DemoQuestion {
    fn about(scene: usize, of: &Scene) -> Self {
        Self {
            text: format!("What digit flashes in the {} scene?", of.colour),
            answer: of.flash.digit.to_string(),
            scene,
            evidence: of.flash.span,
        }
    }
}

/// A video: everything that its frames follow from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DemoVideo {
    /// A name for files and rows, unique in its archive.
    pub name: String,
    /// Seed of its noise.
    pub seed: u64,
    /// Length in whole seconds.
    pub seconds: u32,
    /// Frames per second.
    pub fps: u32,
    /// Most frames from keyframe to keyframe that its encoding should have.
    pub gop: u32,
    /// Its scenes in order, end to end.
    pub scenes: Vec<Scene>,
    /// Questions about it.
    pub questions: Vec<DemoQuestion>,
}

/// What a video is drawn from.
pub(crate) struct VideoShape {
    pub(crate) seconds: u32,
    pub(crate) fps: u32,
    pub(crate) gop: u32,
    pub(crate) questions: usize,
}

impl DemoVideo {
    /// A video drawn from `seed`; `questions` of its scenes are asked about.
    pub(crate) fn draw(name: String, seed: u64, shape: &VideoShape) -> Self {
        let mut source = Source::new(&[seed]);
        let mut colours = Colour::ALL;
        source.shuffle(&mut colours);
        let scenes: Vec<Scene> = cut(&mut source, f64::from(shape.seconds))
            .into_iter()
            .zip(colours)
            .map(|(span, colour)| Scene::draw(&mut source, span, colour))
            .collect();
        let mut asked: Vec<usize> = (0..scenes.len()).collect();
        source.shuffle(&mut asked);
        let questions =
            asked.into_iter().take(shape.questions).map(|i| DemoQuestion::about(i, &scenes[i])).collect();
        Self { name, seed, seconds: shape.seconds, fps: shape.fps, gop: shape.gop, scenes, questions }
    }

    /// Frames of the video; frame `n` is shown at `n / fps` seconds.
    pub fn frame_count(&self) -> u64 {
        u64::from(self.seconds) * u64::from(self.fps)
    }

    /// What paints its frames.
    pub fn painter(&self) -> Painter<'_> {
        Painter::new(self)
    }

    /// The scene at a time; the last one at and past the end.
    pub(crate) fn scene_at(&self, seconds: f64) -> Option<&Scene> {
        self.scenes.iter().find(|scene| seconds < scene.span.end_s).or(self.scenes.last())
    }
}
