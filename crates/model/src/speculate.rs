//! Speculative decoding: a proposer guesses what comes next, the model runs all guesses in one call, and each row decides
//! its token exactly as it would have without guesses. What was guessed right is free; what was guessed wrong is
//! forgotten. So the text is the same token for token, greedy or drawn.
//!
//! On drawing: a guess is a token, not a distribution. Rejection sampling against a proposer that puts all its mass on
//! one token accepts it with the model's own probability, and else draws from the rest; that is the same as drawing
//! from the model and comparing. Here it is done by drawing, so that a seed gives the text that it gives without guesses.
//!
//! Proposers stand behind [`Proposer`]: [`lookup`] in what was written before, the model's own [`sparse`] side, and a
//! smaller [`draft`] model that sees fewer visual tokens. Sources: SpecVLM (arXiv 2508.16201) for the pruning, Sparse-to-Dense
//! for the model's own side.

mod draft;
mod drafter;
mod guess;
mod look;
mod lookup;
mod prune;
mod sparse;
mod tally;

pub use tally::SpeculationFigures;

pub(crate) use draft::DraftModel;
pub(crate) use guess::Guess;
pub(crate) use tally::Tally;

use draft::Draft;
use sparse::Sparse;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

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
    /// The draft model, over fewer visual tokens.
    Draft,
}

impl FromStr for ProposerChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "lookup" => Ok(Self::Lookup),
            "sparse" => Ok(Self::Sparse),
            "draft" => Ok(Self::Draft),
            _ => Err(ModelError::Device(format!(
                "speculation {text:?} is unknown: use off, lookup, sparse or draft"
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
        })
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
    /// Most sequences that decode at once for guesses to be made.
    pub most_sequences: usize,
}

impl Speculation {
    /// As it is sensible for a proposer: a short chain, nine of ten visual tokens pruned (SpecVLM), one sequence at a
    /// time for what needs model calls.
    pub fn by(proposer: ProposerChoice) -> Self {
        let most_sequences = if proposer == ProposerChoice::Lookup { 4 } else { 1 };
        Self { proposer, widths: vec![1; 4], prune: 0.9, most_sequences }
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
            ProposerChoice::Sparse => Some(Box::new(Sparse { widths, prune, drafter: None })),
            ProposerChoice::Draft => {
                let model = Arc::clone(draft?);
                Some(Box::new(Draft { model, widths, prune, drafter: None }))
            }
        }
    }
}

/// One sequence's proposer, and when it may be asked.
#[derive(Debug)]
pub(crate) struct Speculator {
    pub(crate) proposer: Box<dyn Proposer>,
    pub(crate) most_sequences: usize,
    pub(crate) tally: Arc<Tally>,
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

/// Guesses what one sequence writes next.
pub(crate) trait Proposer: fmt::Debug + Send {
    /// Guesses that follow all that is decided; none where it has no idea.
    ///
    /// # Errors
    /// Where the device fails.
    fn propose(&mut self, known: &Known<'_>) -> Result<Guess, ModelError>;
}

/// Prompt lookup as a proposer.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) most: usize,
    pub(crate) image_token_id: u32,
}

impl Proposer for Lookup {
    fn propose(&mut self, known: &Known<'_>) -> Result<Guess, ModelError> {
        let mut all = known.prompt.ids.clone();
        all.extend_from_slice(known.decided);
        let most = self.most.min(known.room);
        Ok(Guess::chain(lookup::guess(&all, |id| id != self.image_token_id, most)))
    }
}
