//! What one generation has written so far: draws token by token, grows the text, knows when to end.

use std::sync::Arc;

use spectemp_engine::{Request, TokenRecord};
use spectemp_types::TurnFinish;

use crate::ModelError;
use crate::sample::{Sampler, log_sum};
use crate::tokenizer::{Detokenizer, Tokenizer};

/// One generation's output while it grows.
#[derive(Debug)]
pub(crate) struct Writer {
    sampler: Sampler,
    text: Detokenizer,
    ids: Vec<u32>,
    tokens: Vec<TokenRecord>,
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
    pub(crate) fn new(request: &Request, tokenizer: &Arc<Tokenizer>, eos: &Arc<[u32]>) -> Self {
        Self {
            sampler: Sampler::new(request.sampling),
            text: Detokenizer::new(tokenizer),
            ids: Vec::new(),
            tokens: Vec::new(),
            eos: Arc::clone(eos),
            finish: (request.max_new_tokens == 0).then_some(TurnFinish::Length),
        }
    }

    /// Draws a token from the logits that follow what was written.
    ///
    /// # Errors
    /// Where the logits are not finite.
    pub(crate) fn take(&mut self, logits: &[f32], request: &Request) -> Result<(), ModelError> {
        if self.finish.is_some() {
            return Ok(());
        }
        let id = self.sampler.draw(logits).ok_or_else(not_finite)?;
        if self.eos.contains(&id) {
            self.finish = Some(TurnFinish::EndOfTurn);
            return Ok(());
        }
        let logprob = f64::from(logits[id as usize]) - log_sum(logits);
        self.ids.push(id);
        self.tokens.push(TokenRecord { id: Some(id), logprob, text_end: self.text.push(id)? });
        if request.is_done(self.text.text()) {
            self.finish = Some(TurnFinish::Stop);
        } else if self.tokens.len() == request.max_new_tokens as usize {
            self.finish = Some(TurnFinish::Length);
        }
        Ok(())
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
