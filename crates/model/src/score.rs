//! Log-probabilities of given continuations of a generated text, option letters after `<answer>` for example.
//!
//! A candidate continues the text right after the first occurrence of `Score::after`. Where that ends inside a token, the
//! context is cut before the token and its part of the text is put in front of every candidate: the scores are then those
//! of that part and the candidate together, which still compare with each other. Where the output never holds `after`,
//! it is appended. Candidates may have several tokens; the cache is rolled back after each.

use spectemp_engine::{Generation, Score};

use crate::ModelError;
use crate::generate::{Generator, Run, not_finite};
use crate::sample::log_sum;
use crate::text::Rows;

/// Where candidates start.
struct Start {
    /// Generated tokens before them.
    kept: usize,
    /// Text between those tokens and the candidates.
    glue: String,
}

impl Generator {
    /// One log-probability per candidate. What the cache holds behind the candidates' start is forgotten.
    pub(crate) fn score(
        &self,
        run: &mut Run,
        generation: &Generation,
        score: &Score,
    ) -> Result<Vec<f64>, ModelError> {
        let start = start(generation, &score.after);
        let mut context = run.generated[..start.kept].to_vec();
        let glue = if generation.text.contains(&score.after) {
            start.glue
        } else {
            context.extend(self.maker.tokenizer.encode(&start.glue)?);
            String::new()
        };
        let row = self.context_logits(run, &context)?;
        let length = run.cache.len();
        let mut scores = Vec::with_capacity(score.candidates.len());
        for candidate in &score.candidates {
            let ids = self.maker.tokenizer.encode(&format!("{glue}{candidate}"))?;
            scores.push(self.continuation(run, &row, &ids)?);
            run.cache.truncate(length)?;
        }
        run.cache.truncate(run.prompt.ids.len() + start.kept)?;
        Ok(scores)
    }

    /// Brings the cache to the prompt and `context`; gives the logits of what follows.
    fn context_logits(&self, run: &mut Run, context: &[u32]) -> Result<Vec<f32>, ModelError> {
        let prompt = run.prompt.ids.len();
        let last = prompt + context.len() - 1;
        let common = run.generated.iter().zip(context).take_while(|(a, b)| a == b).count();
        run.cache.truncate(last.min(prompt + common))?;
        let have = run.cache.len();
        let hidden = if have < prompt {
            // Only the prompt's last token is missing; a template's prompt ends in text.
            let (ids, position) = (&run.prompt.ids[have..], run.prompt.positions[have][0]);
            if run.prompt.images.iter().any(|image| image.at + image.tokens > have) {
                return Err(ModelError::Prompt("candidates cannot follow an image".to_owned()));
            }
            self.forward_text(ids, position, &mut run.cache, Rows::Last)?
        } else {
            let after = have - prompt;
            self.forward_text(&context[after..], run.next + after as u32, &mut run.cache, Rows::Last)?
        };
        self.logits(&hidden)
    }

    /// Sum over the candidate's tokens; `row` holds the first one's logits.
    fn continuation(&self, run: &mut Run, row: &[f32], ids: &[u32]) -> Result<f64, ModelError> {
        let Some((&first, rest)) = ids.split_first() else {
            return Err(ModelError::Prompt("a candidate to score is empty".to_owned()));
        };
        let mut sum = log_probability(row, first)?;
        if !rest.is_empty() {
            let after = run.cache.len() - run.prompt.ids.len();
            let fed = &ids[..ids.len() - 1];
            let hidden = self.forward_text(fed, run.next + after as u32, &mut run.cache, Rows::All)?;
            let rows = self.logits(&hidden)?;
            for (row, &id) in rows.chunks_exact(row.len()).zip(rest) {
                sum += log_probability(row, id)?;
            }
        }
        Ok(sum)
    }
}

fn log_probability(row: &[f32], id: u32) -> Result<f64, ModelError> {
    let logit = row.get(id as usize).ok_or_else(|| ModelError::Prompt(format!("token {id} has no logit")))?;
    let value = f64::from(*logit) - log_sum(row);
    if value.is_nan() { Err(not_finite()) } else { Ok(value) }
}

fn start(generation: &Generation, after: &str) -> Start {
    let Some(found) = generation.text.find(after) else {
        return Start { kept: generation.tokens.len(), glue: after.to_owned() };
    };
    let end = found + after.len();
    if end == 0 {
        return Start { kept: 0, glue: String::new() };
    }
    let reached = generation.tokens.iter().position(|token| token.text_end >= end);
    let last = reached.unwrap_or(generation.tokens.len().saturating_sub(1));
    if generation.tokens.get(last).is_none_or(|token| token.text_end == end) {
        return Start { kept: (last + 1).min(generation.tokens.len()), glue: String::new() };
    }
    let before = last.checked_sub(1).map_or(0, |previous| generation.tokens[previous].text_end);
    Start { kept: last, glue: generation.text[before..end].to_owned() }
}
