//! Constrained output: which tokens may come next so that a turn has its form. llguidance walks the grammar over a trie of
//! the vocabulary; this module gives it the vocabulary, the grammar, and the budget of tokens.
//!
//! What is forced is written in the tokenizer's own spelling (`</`, `think`, `>` rather than byte by byte) and needs no
//! draw. A turn always comes to its end within `max_new_tokens`: see [`budget`].
//!
//! Hazard: a mask is as wide as the model's vocabulary, which may be wider than the tokenizer's; ids that stand for no
//! bytes can never be written.

mod budget;
mod lark;

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{
    INVALID_TOKEN, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use llguidance::{Matcher, ParserFactory, token_bytes_from_tokenizer_json};
use spectemp_engine::{Grammar, Request};

use crate::ModelError;
use crate::tokenizer::Tokenizer;
use budget::Budget;

/// Tokens within a thought, by length: their masks are made once instead of at each token.
const SLICES: [&str; 3] = [
    r"[^<\x00-\x08\x0b-\x1f\x7f]{1,10}",
    r"[^<\x00-\x08\x0b-\x1f\x7f]{1,30}",
    r"[^<\x00-\x08\x0b-\x1f\x7f]+",
];
/// What must survive the way through the tokenizer for forced text to be spelled by it.
const PROBE: &str = "<think> a 1</think><answer>12</answer><segment>(0, 1)</segment><frame>[2.5, 3]</frame>";

/// One tokenizer's trie with what is precomputed for it; made once per model.
pub(crate) struct Constrainer {
    factory: ParserFactory,
    /// Tokens that begin with `<`.
    opening: SimpleVob,
}

impl std::fmt::Debug for Constrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constrainer").field("vocab", &self.opening.len()).finish_non_exhaustive()
    }
}

/// The tokenizer as llguidance asks for it.
struct Vocabulary {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
    canonical: bool,
}

impl Vocabulary {
    fn new(tokenizer: Arc<Tokenizer>, size: usize) -> Result<Self, ModelError> {
        let mut words = token_bytes_from_tokenizer_json(&tokenizer.json()?).map_err(unusable)?;
        words.resize(size, Vec::new());
        // End tokens are not the grammar's business: a turn ends with its form.
        let trie = TokTrie::from(&TokRxInfo::new(size as u32, INVALID_TOKEN), &words);
        let probe = tokenizer.encode(PROBE)?;
        let spelled: Vec<u8> = probe.iter().flat_map(|&id| trie.token(id).to_vec()).collect();
        Ok(Self { trie, tokenizer, canonical: spelled == PROBE.as_bytes() })
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let encode = |text: &str| {
            self.tokenizer.encode(text).unwrap_or_else(|_| self.trie.greedy_tokenize(text.as_bytes()))
        };
        self.trie.tokenize_with_greedy_fallback(bytes, encode)
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}

impl Constrainer {
    /// For a tokenizer and the width of the model's logits.
    ///
    /// # Errors
    /// Where the tokenizer is of a kind whose tokens are not known as bytes.
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, vocab: usize) -> Result<Self, ModelError> {
        let vocabulary = Vocabulary::new(tokenizer, vocab)?;
        let mut opening = vocabulary.trie.alloc_token_set();
        for id in 0..vocab as u32 {
            if vocabulary.trie.token(id).starts_with(b"<") {
                opening.allow_token(id);
            }
        }
        let environment: TokEnv = Arc::new(vocabulary);
        let able = InferenceCapabilities::default();
        let mut factory =
            ParserFactory::new(&environment, able, &SLICES.map(str::to_owned)).map_err(unusable)?;
        factory.quiet();
        Ok(Self { factory, opening })
    }

    /// Holds one generation to its grammar.
    ///
    /// # Errors
    /// A grammar that is too large.
    pub(crate) fn constraint(
        self: &Arc<Self>,
        grammar: &Grammar,
        request: &Request,
    ) -> Result<Constraint, ModelError> {
        let parser = self.factory.create_parser(TopLevelGrammar::from_lark(lark::lark(grammar)));
        let matcher = Matcher::new(Ok(parser.map_err(unusable)?));
        Ok(Constraint { matcher, budget: Budget::new(grammar, request), constrainer: Arc::clone(self) })
    }
}

/// One generation's place in its grammar.
pub(crate) struct Constraint {
    matcher: Matcher,
    budget: Budget,
    constrainer: Arc<Constrainer>,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl Constraint {
    /// Goes over the tokens that must come now, and gives them: none where there is a choice.
    pub(crate) fn take_forced(&mut self) -> Result<Vec<u32>, ModelError> {
        if self.is_done() {
            return Ok(Vec::new());
        }
        let forced = self.matcher.compute_ff_tokens();
        for &id in &forced {
            self.accept(id)?;
        }
        Ok(forced)
    }

    /// The logits with what may not come now at minus infinity; `left` tokens may still be written.
    pub(crate) fn masked(&mut self, logits: &[f32], left: usize) -> Result<Vec<f32>, ModelError> {
        let mut mask = self.matcher.compute_mask().map_err(stuck)?;
        let opening = &self.constrainer.opening;
        if self.budget.must_close(left) && !mask.and_is_zero(opening) {
            mask.and(opening);
        }
        if mask.len() != logits.len() {
            return Err(stuck(format!("{} logits for a vocabulary of {}", logits.len(), mask.len())));
        }
        let mut masked = vec![f32::NEG_INFINITY; logits.len()];
        mask.iter_set_entries(|id| masked[id] = logits[id]);
        Ok(masked)
    }

    /// Goes over a token that was written.
    pub(crate) fn accept(&mut self, id: u32) -> Result<(), ModelError> {
        self.matcher.consume_token(id).map_err(stuck)?;
        self.budget.count(self.constrainer.factory.tok_env().tok_trie().token(id));
        Ok(())
    }

    /// How many of these tokens, from the first on, could be written now.
    pub(crate) fn admits(&mut self, ids: &[u32]) -> Result<usize, ModelError> {
        self.matcher.validate_tokens(ids).map_err(stuck)
    }

    /// Whether the form is complete.
    pub(crate) fn is_done(&self) -> bool {
        self.matcher.is_stopped()
    }
}

fn unusable(error: impl std::fmt::Display) -> ModelError {
    ModelError::Constraint(format!("the tokenizer or the form cannot be used ({error})"))
}

fn stuck(error: impl std::fmt::Display) -> ModelError {
    ModelError::Constraint(error.to_string())
}

#[cfg(test)]
mod tests;
