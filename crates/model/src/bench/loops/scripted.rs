//! Target and draft of one question: what they generate is real and as long as it may be, what the loop reads is a script.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use spectemp_engine::{Generation, Message, ModelCard, Part, Request, Role, Vlm, VlmError};

use crate::vlm::QwenVlm;

/// Seconds of a segment, which at the plan's rate are as many dense frames as its cap allows.
const SEGMENT_S: usize = 64;

/// One turn, as the peer is to repeat it.
#[derive(Clone, Debug)]
pub(super) struct Spoken {
    pub(super) model: &'static str,
    /// The prompt.
    pub(super) ids: Vec<u32>,
    /// Sides of its images in pixels.
    pub(super) side: u32,
    /// Of each image, which has only one.
    pub(super) colours: Vec<[u8; 3]>,
    /// What was generated.
    pub(super) forced: Vec<u32>,
}

/// One question's models.
pub(super) struct Scripted {
    target: Arc<QwenVlm>,
    draft: Arc<QwenVlm>,
    question: usize,
    spoken: Mutex<Vec<Spoken>>,
}

impl Scripted {
    /// Rounds of the script: one after each of three segments, and the first.
    pub(super) const ROUNDS: u32 = 4;

    pub(super) fn new(target: &Arc<QwenVlm>, draft: &Arc<QwenVlm>, question: usize) -> Self {
        let (target, draft) = (Arc::clone(target), Arc::clone(draft));
        Self { target, draft, question, spoken: Mutex::default() }
    }

    pub(super) fn target(self: &Arc<Self>) -> Arc<Speaker> {
        Arc::new(Speaker { pair: Arc::clone(self), is_target: true })
    }

    pub(super) fn draft(self: &Arc<Self>) -> Arc<Speaker> {
        Arc::new(Speaker { pair: Arc::clone(self), is_target: false })
    }

    /// All turns so far.
    pub(super) fn spoken(&self) -> Vec<Spoken> {
        self.spoken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A segment of its own for each question and round, as long as there are such; then the answer.
    fn target_line(&self, messages: &[Message]) -> String {
        let round = messages.iter().filter(|message| message.role == Role::Assistant).count();
        if round + 1 == Self::ROUNDS as usize {
            return "<think>it is there</think><answer>a bird</answer>".to_owned();
        }
        let start = 40 + (self.question * (Self::ROUNDS as usize - 1) + round) * 2 * SEGMENT_S % 3400;
        format!("<think>look there</think><segment>({start}, {})</segment>", start + SEGMENT_S)
    }
}

/// One of the two models.
pub(super) struct Speaker {
    pair: Arc<Scripted>,
    is_target: bool,
}

impl Speaker {
    fn model(&self) -> &QwenVlm {
        if self.is_target { &self.pair.target } else { &self.pair.draft }
    }
}

#[async_trait]
impl Vlm for Speaker {
    fn card(&self) -> &ModelCard {
        self.model().card()
    }

    async fn generate(&self, request: Request) -> Result<Generation, VlmError> {
        let line = if self.is_target {
            self.pair.target_line(&request.messages)
        } else {
            draft_line(&request.messages)
        };
        let messages = request.messages.clone();
        // As many tokens as it may write.
        let request = Request { stops: Vec::new(), ..request };
        let mut generation = self.model().generate(request).await?;
        let images: Vec<_> = messages.iter().flat_map(|message| &message.parts).filter_map(image).collect();
        let spoken = Spoken {
            model: if self.is_target { "target" } else { "draft" },
            ids: self.model().prompt_ids(&messages)?,
            side: images.first().map_or(0, |(side, _)| *side),
            colours: images.into_iter().map(|(_, colour)| colour).collect(),
            forced: generation.token_ids(),
        };
        self.pair.spoken.lock().unwrap_or_else(PoisonError::into_inner).push(spoken);
        generation.text = line;
        generation.finish = spectemp_types::TurnFinish::EndOfTurn;
        Ok(generation)
    }
}

fn image(part: &Part) -> Option<(u32, [u8; 3])> {
    let Part::Image(image) = part else { return None };
    Some((image.width, [*image.data.first()?, *image.data.get(1)?, *image.data.get(2)?]))
}

/// Two of the labels that stand before the images.
fn draft_line(messages: &[Message]) -> String {
    let parts: Vec<&Part> = messages.iter().flat_map(|message| &message.parts).collect();
    let label = |pair: &[&Part]| match pair {
        [Part::Text(text), Part::Image(_)] => text.split_whitespace().last().map(str::to_owned),
        _ => None,
    };
    let labels: Vec<String> = parts.windows(2).filter_map(label).collect();
    let at = |third: usize| labels.get(labels.len() * third / 3).cloned().unwrap_or_default();
    format!("<think>these two</think><frame>[{}, {}]</frame>", at(1), at(2))
}
