//! Doubles for tests: a model that answers by a function of its request, and a video of still frames.

use std::sync::Mutex;

use async_trait::async_trait;
use spectemp_types::{IoFigures, ModelRevision, StageTimes, TokenCounts, TurnFinish};

use crate::{
    Abilities, Frame, FrameBatch, FrameError, FrameMode, FrameRequest, FrameSource, Generation, Message,
    ModelCard, Part, Pattern, PixelBudget, PromptTemplates, Request, RgbImage, TokenRecord, VideoFacts, Vlm,
    VlmError, smart_resize,
};

/// A card with Qwen2.5-VL's pixel bounds and the built-in prompts.
pub fn card(name: &str) -> ModelCard {
    ModelCard {
        revision: ModelRevision { name: name.to_owned(), revision: "scripted".to_owned() },
        pixels: PixelBudget { min_pixels: 3136, max_pixels: 12_845_056, multiple: 28 },
        templates: PromptTemplates { target: None, draft: None },
        context_tokens: 128_000,
        abilities: Abilities { constraint: true, probabilities: true, seeds: true },
    }
}

type Script = dyn Fn(&Request) -> Result<String, VlmError> + Send + Sync;

/// A model whose text is a function of the request. Tokens are the text's characters; log-probabilities and scores
/// are made from the text, so the same request always gives the same generation.
pub struct ScriptedVlm {
    card: ModelCard,
    script: Box<Script>,
    requests: Mutex<Vec<Request>>,
}

impl ScriptedVlm {
    /// A model that says what `script` returns.
    pub fn new(
        card: ModelCard,
        script: impl Fn(&Request) -> Result<String, VlmError> + Send + Sync + 'static,
    ) -> Self {
        Self { card, script: Box::new(script), requests: Mutex::new(Vec::new()) }
    }

    /// A model that says one line after the other, by the number of turns in the request's conversation that it spoke
    /// already; the last line again and again.
    pub fn lines(card: ModelCard, lines: &[&str]) -> Self {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        Self::new(card, move |request| {
            let spoken =
                request.messages.iter().filter(|message| message.role == crate::Role::Assistant).count();
            Ok(lines.get(spoken).or(lines.last()).cloned().unwrap_or_default())
        })
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().map(|requests| requests.clone()).unwrap_or_default()
    }
}

#[async_trait]
impl Vlm for ScriptedVlm {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    async fn generate(&self, request: Request) -> Result<Generation, VlmError> {
        if request.cancel.is_cancelled() {
            return Err(VlmError::Cancelled);
        }
        let text = (self.script)(&request)?;
        let record = |(at, character): (usize, char)| TokenRecord {
            id: Some(u32::from(character)),
            logprob: -0.01 * f64::from(u32::from(character) % 50),
            text_end: at + character.len_utf8(),
        };
        let tokens: Vec<TokenRecord> = text.char_indices().map(record).collect();
        let scores =
            request.score.as_ref().map(|score| score.candidates.iter().map(|c| scored(&text, c)).collect());
        let parts = || request.messages.iter().flat_map(|message| &message.parts);
        let counts = TokenCounts {
            text: parts().map(|part| if let Part::Text(text) = part { text.len() as u64 } else { 0 }).sum(),
            visual: parts().filter(|part| matches!(part, Part::Image(_))).count() as u64,
            reused: 0,
            encoded: 0,
            generated: tokens.len() as u64 + 1,
        };
        if let Ok(mut requests) = self.requests.lock() {
            requests.push(request);
        }
        let (finish, times) = (TurnFinish::EndOfTurn, StageTimes::default());
        Ok(Generation { text, tokens, finish, counts, times, scores })
    }
}

/// A made-up log-probability, higher for what the text holds.
fn scored(text: &str, candidate: &str) -> f64 {
    let digest = blake3::hash(format!("{text}\n{candidate}").as_bytes());
    let noise = f64::from(digest.as_bytes()[0]) / 256.0;
    if text.contains(candidate) { -0.1 - noise } else { -3.0 - noise }
}

/// A text that a pattern admits; the seed chooses among all of them.
pub fn admitted(pattern: &Pattern, seed: u64) -> String {
    let mut state = seed;
    let mut choose = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % below as u64) as usize
    };
    write(pattern, &mut choose)
}

fn write(pattern: &Pattern, choose: &mut impl FnMut(usize) -> usize) -> String {
    match pattern {
        Pattern::Text(text) => text.clone(),
        // What all sets in use hold, the odd ones too.
        Pattern::OneOf(_) => ["a", "7", "é", "日", "🙂", ">", "/", "|", "("][choose(9)].to_owned(),
        Pattern::Range(from, to) => {
            let wide = u32::from(*to) - u32::from(*from) + 1;
            let character = u32::from(*from) + choose(wide as usize) as u32;
            char::from_u32(character).unwrap_or(*from).to_string()
        }
        Pattern::Sequence(parts) => parts.iter().map(|part| write(part, choose)).collect(),
        Pattern::Choice(parts) => write(&parts[choose(parts.len())], choose),
        Pattern::Repeat(part, least, most) => {
            let most = most.unwrap_or(least + 12);
            let count = *least as usize + choose((most - least) as usize + 1);
            (0..count).map(|_| write(part, choose)).collect()
        }
    }
}

/// A conversation as readable text: images by size and content.
pub fn transcript(messages: &[Message]) -> String {
    let mut text = String::new();
    for message in messages {
        text.push_str(&format!("── {}\n", message.role.as_str()));
        for part in &message.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Image(image) => {
                    text.push_str(&format!("⟦{}x{}#{}⟧", image.width, image.height, name(image)))
                }
                Part::Generated { text: spoken, .. } => text.push_str(spoken),
            }
        }
        text.push('\n');
    }
    text
}

fn name(image: &RgbImage) -> String {
    blake3::hash(&image.data).to_hex().chars().take(6).collect()
}

/// A video of frames of one colour each, made from their numbers.
#[derive(Clone, Debug)]
pub struct StillFrames {
    /// What the loop must know.
    pub facts: VideoFacts,
    /// Frames per second.
    pub fps: f64,
    /// Every how many frames a keyframe stands.
    pub keyframe_every: u64,
}

impl StillFrames {
    /// 112 × 112 px, two frames a second, a keyframe every eight.
    pub fn lasting(duration_s: f64) -> Self {
        Self { facts: VideoFacts { duration_s, width: 112, height: 112 }, fps: 2.0, keyframe_every: 8 }
    }

    fn last(&self) -> u64 {
        ((self.facts.duration_s * self.fps).ceil() as u64).max(1) - 1
    }

    fn number(&self, time_s: f64, mode: FrameMode, taken: &[u64]) -> u64 {
        let exact = ((time_s * self.fps + 1e-9).floor().max(0.0) as u64).min(self.last());
        let FrameMode::Keyframe { tolerance_s } = mode else { return exact };
        let key = (time_s * self.fps / self.keyframe_every as f64).round() as u64 * self.keyframe_every;
        let near = (key as f64 / self.fps - time_s).abs() <= tolerance_s;
        if near && key <= self.last() && !taken.contains(&key) { key } else { exact }
    }

    fn frame(&self, number: u64, requested_s: f64, sizes: &[PixelBudget]) -> Result<Frame, FrameError> {
        let pts_s = number as f64 / self.fps;
        let full = PixelBudget { min_pixels: 1, max_pixels: u32::MAX, multiple: 1 };
        let sizes = if sizes.is_empty() { &[full][..] } else { sizes };
        let images = sizes.iter().map(|size| self.image(number, *size)).collect::<Result<_, _>>()?;
        let keyframe = number.is_multiple_of(self.keyframe_every);
        Ok(Frame { requested_s, pts_s, stream_pts_s: pts_s + 1.4, keyframe, images })
    }

    fn image(&self, number: u64, size: PixelBudget) -> Result<RgbImage, FrameError> {
        let VideoFacts { width, height, .. } = self.facts;
        let (width, height) =
            smart_resize(width, height, size).map_err(|error| FrameError::Permanent(error.to_string()))?;
        let colour = (number as u32).wrapping_mul(2_654_435_761).to_le_bytes();
        let data = colour[..3].repeat((width * height) as usize);
        Ok(RgbImage { width, height, data: data.into() })
    }
}

#[async_trait]
impl FrameSource for StillFrames {
    fn facts(&self) -> VideoFacts {
        self.facts
    }

    async fn frames(&self, request: FrameRequest) -> Result<FrameBatch, FrameError> {
        if request.cancel.is_cancelled() {
            return Err(FrameError::Cancelled);
        }
        let mut taken = Vec::new();
        let mut frames = Vec::new();
        for time in request.times_s {
            let number = self.number(time, request.mode, &taken);
            taken.push(number);
            frames.push(self.frame(number, time, &request.sizes)?);
        }
        let io = IoFigures {
            requests: 1,
            bytes: frames.len() as u64,
            decoded_frames: frames.len() as u64,
            full_scan: false,
        };
        Ok(FrameBatch { frames, io, fetch_ms: 0.0, decode_ms: 0.0, warnings: Vec::new() })
    }
}
