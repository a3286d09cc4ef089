//! Questions as users ask them: several at the same moment, through tokenizer, batching and memory.

use std::path::Path;
use std::sync::Arc;

use futures::future::try_join_all;
use spectemp_engine::{Generation, Message, Part, Request, Role, Sampling, Vlm, VlmError};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::ours::Clock;
use super::report::Run;
use crate::ModelError;
use crate::device::{DTypeChoice, LoadOptions};
use crate::files::ModelFiles;
use crate::vlm::QwenVlm;

pub(super) struct Served {
    runtime: Runtime,
    model: Arc<QwenVlm>,
}

impl Served {
    /// Nothing is kept between runs.
    pub(super) fn load(folder: &Path, threads: usize, dtype: DTypeChoice) -> Result<Self, ModelError> {
        let options = LoadOptions {
            threads: Some(threads),
            dtype,
            prefix_cache_bytes: 0,
            vision_cache_bytes: 0,
            ..LoadOptions::default()
        };
        let model = Arc::new(QwenVlm::load(&ModelFiles::folder(folder), &options)?);
        Ok(Self { runtime: runtime()?, model })
    }

    /// Answers all of them, and says what the prompts were.
    pub(super) fn questions(&self, count: usize, context: usize, tokens: usize) -> Result<Run, ModelError> {
        let questions: Vec<Vec<Message>> = (0..count).map(|number| question(number, context)).collect();
        let prompts = questions.iter().map(|messages| self.model.prompt_ids(messages));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let start = Clock::start();
        let asked = questions.into_iter().map(|messages| self.model.generate(request(messages, tokens)));
        let answers = self.runtime.block_on(try_join_all(asked)).map_err(failed)?;
        let (seconds, cpu_seconds) = start.elapsed();
        let ids = answers.iter().flat_map(Generation::token_ids).collect();
        Ok(Run { seconds, cpu_seconds, values: vec![1.0], tokens: ids, prompts })
    }
}

/// What a caller waits on.
pub(super) fn runtime() -> Result<Runtime, ModelError> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| ModelError::Device(format!("a runtime cannot be started: {error}")))
}

pub(super) fn failed(error: VlmError) -> ModelError {
    ModelError::Source { model: "the model under test".to_owned(), reason: error.to_string() }
}

/// A greedy request for so many tokens.
pub(super) fn request(messages: Vec<Message>, tokens: usize) -> Request {
    Request {
        messages,
        sampling: Sampling { temperature: 0.0, top_p: 1.0, seed: 0 },
        max_new_tokens: tokens as u32,
        grammar: None,
        think_tokens: tokens as u32,
        stops: Vec::new(),
        score: None,
        cancel: CancellationToken::new(),
    }
}

/// Letters that no tokenizer at hand joins, so that each is a token; the first two tell the question.
fn question(number: usize, context: usize) -> Vec<Message> {
    const LETTERS: [char; 16] =
        ['B', 'C', 'D', 'F', 'G', 'H', 'J', 'K', 'M', 'P', 'Q', 'R', 'V', 'X', 'Y', 'Z'];
    let letter = |at: usize| LETTERS[at % LETTERS.len()];
    let head = [letter(number / LETTERS.len()), letter(number)];
    let text = (0..context.saturating_sub(head.len())).map(|at| letter(number + at * 7 + at * at / 3));
    vec![Message { role: Role::User, parts: vec![Part::Text(head.into_iter().chain(text).collect())] }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn questions_differ_and_have_as_many_tokens_as_they_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/target");
        let tokenizer = Tokenizer::open(&ModelFiles::folder(folder)).unwrap();
        let mut texts = Vec::new();
        for number in [0, 1, 15, 16, 255] {
            let [Message { parts, .. }] = &question(number, 256)[..] else { panic!("one message") };
            let [Part::Text(text)] = &parts[..] else { panic!("one text") };
            assert_eq!(tokenizer.encode(text).unwrap().len(), 256, "{text}");
            texts.push(text.clone());
        }
        texts.dedup();
        assert_eq!(texts.len(), 5);
    }
}
