//! Speculative decoding: a proposer guesses what comes next, the model runs all guesses in one call, and each row decides
//! its token exactly as it would have without guesses. What was guessed right is free; what was guessed wrong is
//! forgotten. So the text is the same token for token, greedy or drawn.
//!
//! On drawing: a guess is a token, not a distribution. Rejection sampling against a proposer that puts all its mass on
//! one token accepts it with the model's own probability, and else draws from the rest; that is the same as drawing
//! from the model and comparing. Here it is done by drawing, so that a seed gives the text that it gives without guesses.
//!
//! Proposers stand behind [`Proposer`]: [`lookup`] in what was written before, the model's own [`sparse`] side, and a
//! smaller [`draft`] model that sees fewer visual tokens. Sources: SpecVLM (arXiv 2508.16201) for the pruning by attention, FastVID
//! for that by [`density`], Sparse-to-Dense for the model's own side.

mod density;
mod draft;
mod drafter;
mod guess;
mod look;
mod lookup;
mod pace;
mod prune;
mod sparse;
mod tally;

pub use tally::SpeculationFigures;

pub(crate) use draft::DraftModel;
pub(crate) use guess::Guess;
pub(crate) use pace::Pace;
pub(crate) use tally::Tally;

use draft::{Draft, Reducer};
use drafter::Side;
use sparse::Sparse;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::ModelError;
use crate::kv::Cache;
use crate::prompt::Prompt;
use crate::text::TextModel;

/// Who guesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProposerChoice {
    /// Nobody.
    #[default]
    Off,
    /// What followed the same words earlier in the conversation.
    Lookup,
    /// The model itself, over the visual tokens that matter most.
    Sparse,
    /// The draft model, over the visual tokens that the target looks at most and some of the rest.
    Draft,
    /// The draft model, over tokens that each stand for some that are alike.
    DraftDensity,
}

impl FromStr for ProposerChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "lookup" => Ok(Self::Lookup),
            "sparse" => Ok(Self::Sparse),
            "draft" => Ok(Self::Draft),
            "draft-density" => Ok(Self::DraftDensity),
            _ => Err(ModelError::Device(format!(
                "speculation {text:?} is unknown: use off, lookup, sparse, draft or draft-density"
            ))),
        }
    }
}

impl fmt::Display for ProposerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Lookup => "lookup",
            Self::Sparse => "sparse",
            Self::Draft => "draft",
            Self::DraftDensity => "draft-density",
        })
    }
}

impl ProposerChoice {
    /// All who guess.
    pub const ALL: [Self; 4] = [Self::Lookup, Self::Sparse, Self::Draft, Self::DraftDensity];

    /// Whether a draft model is needed.
    pub fn needs_draft(self) -> bool {
        matches!(self, Self::Draft | Self::DraftDensity)
    }
}

/// How guesses are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Speculation {
    /// Who makes them.
    pub proposer: ProposerChoice,
    /// Guesses at each level after what is decided: ones are a chain, more is a tree.
    pub widths: Vec<usize>,
    /// Share of the visual tokens that the draft, or the model's sparse side, does without: 0 to 1.
    pub prune: f64,
    /// Most sequences that decode at once for guesses to be made; none where it is measured while decoding whether guessing
    /// is faster.
    pub most_sequences: Option<usize>,
}

impl Speculation {
    /// As it is sensible for a proposer: a short chain, nine of ten visual tokens pruned (SpecVLM), as long as it is faster.
    pub fn by(proposer: ProposerChoice) -> Self {
        Self { proposer, widths: vec![1; 4], prune: 0.9, most_sequences: None }
    }

    /// A proposer for one sequence; none where nobody guesses, or no draft was loaded for it.
    pub(crate) fn proposer(
        &self,
        draft: Option<&Arc<DraftModel>>,
        image_token_id: u32,
    ) -> Option<Box<dyn Proposer>> {
        let widths: Vec<usize> = self.widths.iter().copied().take_while(|&width| width > 0).collect();
        let prune = self.prune.clamp(0.0, 1.0);
        match self.proposer {
            _ if widths.is_empty() => None,
            ProposerChoice::Off => None,
            ProposerChoice::Lookup => Some(Box::new(Lookup { most: widths.len(), image_token_id })),
            ProposerChoice::Sparse => Some(Box::new(Sparse { side: Side::new(widths, prune) })),
            ProposerChoice::Draft | ProposerChoice::DraftDensity => {
                let reducer = match self.proposer {
                    ProposerChoice::DraftDensity => Reducer::Density,
                    _ => Reducer::Attention,
                };
                let model = Arc::clone(draft?);
                Some(Box::new(Draft { model, reducer, side: Side::new(widths, prune), making: None }))
            }
        }
    }
}

/// One sequence's proposer, and when it may be asked.
#[derive(Debug)]
pub(crate) struct Speculator {
    pub(crate) proposer: Box<dyn Proposer>,
    /// Most sequences that write at once; none where it is measured.
    pub(crate) most_sequences: Option<usize>,
    pub(crate) tally: Arc<Tally>,
    /// Bytes of keys and values that it may take.
    pub(crate) most_bytes: usize,
}

/// What a proposer's memory depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Text tokens of the prompt.
    pub(crate) text: usize,
    /// Its visual tokens.
    pub(crate) visual: usize,
    /// Most tokens behind it.
    pub(crate) after: usize,
    /// Bytes of keys and values per block of the model that decides.
    pub(crate) block_bytes: usize,
}

/// What a proposer may look at.
pub(crate) struct Known<'a> {
    pub(crate) prompt: &'a Prompt,
    /// Tokens after the prompt that are decided, at least one.
    pub(crate) decided: &'a [u32],
    /// Position of the first of them.
    pub(crate) position: u32,
    /// The model that decides, and what it holds: the prompt at least.
    pub(crate) text: &'a TextModel,
    pub(crate) cache: &'a Cache,
    /// Most guesses that are of use one after the other.
    pub(crate) room: usize,
}

/// A piece of the making of a drafter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) took: Duration,
    /// Its share of the whole.
    pub(crate) share: f64,
}

/// Guesses what one sequence writes next.
pub(crate) trait Proposer: fmt::Debug + Send {
    /// Does the next piece of what is needed before the first guesses, where anything is: at most a group of images and a chunk
    /// of the prompt.
    ///
    /// # Errors
    /// Where the device fails.
    fn start(&mut self, known: &Known<'_>) -> Result<Option<Piece>, ModelError>;

    /// Guesses that follow all that is decided; none where it has no idea or is not ready.
    ///
    /// # Errors
    /// Where the device fails.
    fn propose(&mut self, known: &Known<'_>) -> Result<Guess, ModelError>;

    /// Most bytes of keys and values that it will take of its own.
    fn most_bytes(&self, extent: Extent) -> usize;

    /// Those that it has now.
    fn held_bytes(&self) -> usize;
}

/// Prompt lookup as a proposer.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) most: usize,
    pub(crate) image_token_id: u32,
}

impl Proposer for Lookup {
    fn start(&mut self, _known: &Known<'_>) -> Result<Option<Piece>, ModelError> {
        Ok(None)
    }

    fn propose(&mut self, known: &Known<'_>) -> Result<Guess, ModelError> {
        let mut all = known.prompt.ids.clone();
        all.extend_from_slice(known.decided);
        let most = self.most.min(known.room);
        Ok(Guess::chain(lookup::guess(&all, |id| id != self.image_token_id, most)))
    }

    fn most_bytes(&self, _extent: Extent) -> usize {
        0
    }

    fn held_bytes(&self) -> usize {
        0
    }
}
