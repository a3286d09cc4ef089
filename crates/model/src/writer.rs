//! The writing side of one generation: from rows of logits to the turn's tokens. It knows nothing of how rows are made:
//! one by one, in batches, or several at a time for tokens that are only guessed.
//!
//! Each row decides exactly one token. Some are settled before their row is there ([`Writer::settled`]): they can be run
//! together with the token before them.

use std::collections::VecDeque;
use std::sync::Arc;

use spectemp_engine::{Request, THOUGHT_CLOSES, THOUGHT_OPENS, TokenRecord};
use spectemp_types::TurnFinish;

use crate::ModelError;
use crate::constrain::Constraint;
use crate::sample::{Sampler, log_sum};
use crate::tokenizer::{Detokenizer, Tokenizer};

/// One generation's output while it grows.
#[derive(Debug)]
pub(crate) struct Writer {
    sampler: Sampler,
    constraint: Option<Constraint>,
    text: Detokenizer,
    ids: Vec<u32>,
    tokens: Vec<TokenRecord>,
    /// Settled tokens whose rows have not come yet.
    settled: VecDeque<u32>,
    /// Tokens of an open thought, where no constraint counts them.
    thought: u32,
    eos: Arc<[u32]>,
    finish: Option<TurnFinish>,
}

/// A finished output.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) tokens: Vec<TokenRecord>,
    pub(crate) finish: TurnFinish,
}

impl Writer {
    /// An output that has not begun.
    ///
    /// # Errors
    /// Where the constraint cannot be used.
    pub(crate) fn new(
        request: &Request,
        tokenizer: &Arc<Tokenizer>,
        eos: &Arc<[u32]>,
        constraint: Option<Constraint>,
    ) -> Result<Self, ModelError> {
        let mut writer = Self {
            sampler: Sampler::new(request.sampling),
            constraint,
            text: Detokenizer::new(tokenizer),
            ids: Vec::new(),
            tokens: Vec::new(),
            settled: VecDeque::new(),
            thought: 0,
            eos: Arc::clone(eos),
            finish: (request.max_new_tokens == 0).then_some(TurnFinish::Length),
        };
        writer.settle()?;
        Ok(writer)
    }

    /// Decides one token by the logits of what follows those before it; none where the model ends its turn with it, or
    /// the output is finished already.
    ///
    /// # Errors
    /// Logits that are no numbers; a constraint that cannot go on.
    pub(crate) fn take(&mut self, row: &[f32], request: &Request) -> Result<Option<u32>, ModelError> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let id = match self.settled.pop_front() {
            Some(id) => id,
            None => {
                let id = self.draw(row, request)?;
                if self.eos.contains(&id) {
                    self.finish = Some(TurnFinish::EndOfTurn);
                    return Ok(None);
                }
                if let Some(constraint) = &mut self.constraint {
                    constraint.accept(id)?;
                }
                id
            }
        };
        let logit = row.get(id as usize).copied().ok_or_else(not_finite)?;
        let logprob = f64::from(logit) - log_sum(row);
        self.ids.push(id);
        self.tokens.push(TokenRecord { id: Some(id), logprob, text_end: self.text.push(id)? });
        if self.settled.is_empty() {
            self.settle()?;
            self.close_thought(request)?;
        }
        let complete = self.settled.is_empty() && self.constraint.as_ref().is_some_and(Constraint::is_done);
        if complete || request.is_done(self.text.text()) {
            self.finish = Some(TurnFinish::Stop);
        } else if self.ids.len() >= request.max_new_tokens as usize {
            self.finish = Some(TurnFinish::Length);
        }
        Ok(Some(id))
    }

    fn draw(&mut self, row: &[f32], request: &Request) -> Result<u32, ModelError> {
        let left = request.max_new_tokens as usize - self.ids.len();
        let id = match &mut self.constraint {
            Some(constraint) => self.sampler.draw(&constraint.masked(row, left)?),
            None => self.sampler.draw(row),
        };
        id.ok_or_else(not_finite)
    }

    /// Takes over what the form leaves no choice in.
    fn settle(&mut self) -> Result<(), ModelError> {
        if let Some(constraint) = &mut self.constraint {
            self.settled.extend(constraint.take_forced()?);
        }
        Ok(())
    }

    /// Without a constraint: ends a thought that has used up its tokens.
    fn close_thought(&mut self, request: &Request) -> Result<(), ModelError> {
        let text = self.text.text();
        let thinks = text.trim_start().starts_with(THOUGHT_OPENS) && !text.contains(THOUGHT_CLOSES);
        if self.constraint.is_some() || !thinks {
            return Ok(());
        }
        self.thought += 1;
        if self.thought > request.think_tokens {
            self.settled.extend(self.tokenizer().encode(THOUGHT_CLOSES)?);
        }
        Ok(())
    }

    /// Tokens that are settled although their rows have not come, as far as there is room for them.
    pub(crate) fn settled(&self, request: &Request) -> impl Iterator<Item = u32> {
        let left = request.max_new_tokens as usize - self.ids.len();
        self.settled.iter().copied().take(left)
    }

    /// How many of these guesses, from the first on, the form admits after what is settled.
    ///
    /// # Errors
    /// Where the constraint cannot go on.
    pub(crate) fn admits(&mut self, guesses: &[u32]) -> Result<usize, ModelError> {
        match &mut self.constraint {
            Some(constraint) if constraint.is_done() => Ok(0),
            Some(constraint) => constraint.admits(guesses),
            None => Ok(guesses.len()),
        }
    }

    /// Whether nothing more is written.
    pub(crate) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Tokens written so far, without the end token.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// What its text is made with.
    pub(crate) fn tokenizer(&self) -> Arc<Tokenizer> {
        self.text.tokenizer()
    }

    /// The output; one that was not finished ended by its length.
    pub(crate) fn finish(mut self) -> Result<Written, ModelError> {
        let text = self.text.finish()?;
        if let Some(last) = self.tokens.last_mut() {
            last.text_end = text.len();
        }
        let finish = self.finish.unwrap_or(TurnFinish::Length);
        Ok(Written { text, ids: self.ids, tokens: self.tokens, finish })
    }
}

pub(crate) fn not_finite() -> ModelError {
    ModelError::Compute(candle_core::Error::Msg("logits are not finite numbers".to_owned()))
}

#[cfg(test)]
mod tests;
