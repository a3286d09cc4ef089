//! The seam to a model: one stateless call. What can be reused between calls (KV of a common prefix, vision
//! embeddings) is found by content inside the backend, never passed around.

use async_trait::async_trait;
use spectemp_types::{ModelRevision, StageTimes, TokenCounts, TurnFinish};
use tokio_util::sync::CancellationToken;

use crate::{
    Grammar, PixelBudget, RgbImage,
    grammar::{THOUGHT_CLOSES, THOUGHT_OPENS},
};

/// Who speaks in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// The loop.
    User,
    /// The model itself, earlier.
    Assistant,
}

impl Role {
    /// The chat template's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text. Spellings of special tokens are already broken up in what came from outside.
    Text(String),
    /// One frame at the size that the model is to see it.
    Image(RgbImage),
    /// What the model generated earlier; backends that own the tokenizer use the ids.
    Generated {
        /// The text without the end token.
        text: String,
        /// Its token ids without the end token.
        token_ids: Vec<u32>,
    },
}

/// One message of the conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Its pieces, in order.
    pub parts: Vec<Part>,
}

/// How tokens are drawn. `temperature` 0 is greedy, whatever the checkpoint's generation_config says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus mass, (0, 1].
    pub top_p: f64,
    /// Seed of this one generation.
    pub seed: u64,
}

/// Log-probabilities wanted for given continuations of the generated text.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The candidates continue the text right after the first occurrence of this, `<answer>` for example.
    /// Where the output never holds it, they continue the whole output with it appended.
    pub after: String,
    /// The candidates, for example option letters.
    pub candidates: Vec<String>,
}

/// One generation to make. The messages end before the assistant's turn.
#[derive(Clone, Debug)]
pub struct Request {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// How to draw.
    pub sampling: Sampling,
    /// Most tokens to generate.
    pub max_new_tokens: u32,
    /// The form that the output must have; a backend that cannot hold its model to one ignores it.
    pub grammar: Option<Grammar>,
    /// Most tokens of the thought: then the backend writes `</think>` for the model, where it can.
    pub think_tokens: u32,
    /// The generation ends once its text holds one of these, see [`Request::is_done`].
    pub stops: Vec<String>,
    /// Candidates to score.
    pub score: Option<Score>,
    /// Ends the generation with [`VlmError::Cancelled`] between two tokens.
    pub cancel: CancellationToken,
}

impl Request {
    /// True once `text` holds one of [`Request::stops`]. Inside a thought none counts: a model may think about tags.
    pub fn is_done(&self, text: &str) -> bool {
        let said = match text.split_once(THOUGHT_CLOSES) {
            Some((_, after)) => after,
            None if text.trim_start().starts_with(THOUGHT_OPENS) => return false,
            None => text,
        };
        self.stops.iter().any(|stop| said.contains(stop.as_str()))
    }
}

/// One generated token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenRecord {
    /// Its id; none where the backend does not tell.
    pub id: Option<u32>,
    /// Its log-probability under the model alone (temperature 1): a grammar does not change it.
    pub logprob: f64,
    /// Length of the text, in bytes, once this token is decoded.
    pub text_end: usize,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The text without the end token.
    pub text: String,
    /// Its tokens without the end token; none where the backend gives no log-probabilities.
    pub tokens: Vec<TokenRecord>,
    /// Why it ended.
    pub finish: TurnFinish,
    /// Tokens of prompt and output.
    pub counts: TokenCounts,
    /// Vision, prefill and generation times.
    pub times: StageTimes,
    /// Log-probability of each candidate, where candidates were given and the backend can tell.
    pub scores: Option<Vec<f64>>,
}

impl Generation {
    /// The ids of its tokens; none where not all are known, and the text is all there is to go by.
    pub fn token_ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect::<Option<_>>().unwrap_or_default()
    }
}

/// A model folder's own prompts, see [`crate::prompt`](index.html).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTemplates {
    /// `prompts/target.jinja`.
    pub target: Option<String>,
    /// `prompts/draft.jinja`.
    pub draft: Option<String>,
}

/// What a backend can do beyond writing text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// It can hold its model to a [`Grammar`].
    pub constraint: bool,
    /// It gives log-probabilities of tokens and scores of candidates.
    pub probabilities: bool,
    /// The same seed gives the same text.
    pub seeds: bool,
}

/// What a backend says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCard {
    /// Name and revision, recorded in traces.
    pub revision: ModelRevision,
    /// Sides are multiples of `multiple`; the checkpoint's own pixel bounds.
    pub pixels: PixelBudget,
    /// The model folder's own prompts.
    pub templates: PromptTemplates,
    /// Most tokens of a context.
    pub context_tokens: u32,
    /// What it can do.
    pub abilities: Abilities,
}

/// Why a generation failed.
#[derive(Debug, thiserror::Error)]
pub enum VlmError {
    /// The request's token was cancelled.
    #[error("generation was cancelled")]
    Cancelled,
    /// The context does not fit.
    #[error(
        "prompt of {tokens} tokens and {max_new} new ones do not fit the model's {limit}: lower the frames or pixels"
    )]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens to generate.
        max_new: usize,
        /// What fits.
        limit: usize,
    },
    /// The request can never work.
    #[error("model request is wrong: {0}")]
    Request(String),
    /// A server will not have it however often it is asked; the text names server, cause and what to do.
    #[error("{0}")]
    Refused(String),
    /// The backend failed; another try may work.
    #[error("model backend failed: {0}")]
    Backend(String),
}

/// A vision-language model.
#[async_trait]
pub trait Vlm: Send + Sync {
    /// What it is and can.
    fn card(&self) -> &ModelCard;

    /// Generates one assistant turn.
    ///
    /// # Errors
    /// See [`VlmError`].
    async fn generate(&self, request: Request) -> Result<Generation, VlmError>;
}
