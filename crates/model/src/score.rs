//! Log-probabilities of given continuations of a generated text, option letters after `<answer>` for example.
//!
//! A candidate continues the text right after the first occurrence of `Score::after`. Where that ends inside a token, the
//! context is cut before the token and its part of the text is put in front of every candidate: the scores are then those
//! of that part and the candidate together, which still compare with each other. Where the output never holds `after`,
//! it is appended. Candidates may have several tokens; the cache is rolled back after each.

use spectemp_engine::Score;

use crate::ModelError;
use crate::sample::log_sum;
use crate::tokenizer::Tokenizer;
use crate::writer::{Written, not_finite};

/// The scoring of one finished generation: first the context runs, then one candidate of several tokens after the other.
#[derive(Debug)]
pub(crate) struct Scoring {
    /// Generated tokens before the candidates.
    pub(crate) kept: usize,
    /// Tokens between the prompt and the candidates.
    pub(crate) context: Vec<u32>,
    /// Token ids of each candidate.
    candidates: Vec<Vec<u32>>,
    /// Once the context ran: log-probabilities of the candidates' first tokens, to which the rest is added.
    sums: Option<Vec<f64>>,
    /// Candidates that are done.
    done: usize,
}

impl Scoring {
    /// Where the candidates of `score` start in what was written.
    pub(crate) fn new(written: &Written, score: &Score, tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let start = start(written, &score.after);
        let mut context = written.ids[..start.kept].to_vec();
        let glue = if written.text.contains(&score.after) {
            start.glue
        } else {
            context.extend(tokenizer.encode(&start.glue)?);
            String::new()
        };
        let encode = |candidate: &String| {
            let ids = tokenizer.encode(&format!("{glue}{candidate}"))?;
            if ids.is_empty() {
                return Err(ModelError::Prompt("a candidate to score is empty".to_owned()));
            }
            Ok(ids)
        };
        let candidates = score.candidates.iter().map(encode).collect::<Result<_, _>>()?;
        Ok(Self { kept: start.kept, context, candidates, sums: None, done: 0 })
    }

    /// Whether the context's logits are still to come.
    pub(crate) fn wants_context(&self) -> bool {
        self.sums.is_none()
    }

    /// The tokens of the next candidate that must run: all but the last, whose logits nobody needs.
    pub(crate) fn fed(&self) -> &[u32] {
        let ids = &self.candidates[self.done];
        &ids[..ids.len() - 1]
    }

    /// Takes the logits after the context.
    pub(crate) fn take_context(&mut self, logits: &[f32]) -> Result<(), ModelError> {
        let first = |ids: &Vec<u32>| log_probability(logits, ids[0]);
        self.sums = Some(self.candidates.iter().map(first).collect::<Result<_, _>>()?);
        self.skip_single();
        Ok(())
    }

    /// Takes the logits of what was fed, `vocab` to a row.
    pub(crate) fn take_candidate(&mut self, logits: &[f32], vocab: usize) -> Result<(), ModelError> {
        let sums = self.sums.get_or_insert_default();
        for (row, &id) in logits.chunks_exact(vocab).zip(&self.candidates[self.done][1..]) {
            sums[self.done] += log_probability(row, id)?;
        }
        self.done += 1;
        self.skip_single();
        Ok(())
    }

    /// Candidates of one token are known from the context's logits.
    fn skip_single(&mut self) {
        let rest = &self.candidates[self.done..];
        self.done += rest.iter().take_while(|ids| ids.len() == 1).count();
    }

    /// One log-probability per candidate, once nothing is left to run.
    pub(crate) fn scores(&self) -> Option<Vec<f64>> {
        self.sums.clone().filter(|_| self.done == self.candidates.len())
    }
}

fn log_probability(row: &[f32], id: u32) -> Result<f64, ModelError> {
    let logit = row.get(id as usize).ok_or_else(|| ModelError::Prompt(format!("token {id} has no logit")))?;
    let value = f64::from(*logit) - log_sum(row);
    if value.is_nan() { Err(not_finite()) } else { Ok(value) }
}

/// Where candidates start.
struct Start {
    /// Generated tokens before them.
    kept: usize,
    /// Text between those tokens and the candidates.
    glue: String,
}

fn start(written: &Written, after: &str) -> Start {
    let tokens = &written.tokens;
    let Some(found) = written.text.find(after) else {
        return Start { kept: tokens.len(), glue: after.to_owned() };
    };
    let end = found + after.len();
    if end == 0 {
        return Start { kept: 0, glue: String::new() };
    }
    let reached = tokens.iter().position(|token| token.text_end >= end);
    let last = reached.unwrap_or(tokens.len().saturating_sub(1));
    if tokens.get(last).is_none_or(|token| token.text_end == end) {
        return Start { kept: (last + 1).min(tokens.len()), glue: String::new() };
    }
    let before = last.checked_sub(1).map_or(0, |previous| tokens[previous].text_end);
    Start { kept: last, glue: written.text[before..end].to_owned() }
}
