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

fn request(messages: Vec<Message>, tokens: usize) -> Request {
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

/// Digits, each of which is a token; the first tells the question.
fn question(number: usize, context: usize) -> Vec<Message> {
    let digit = |at: usize| char::from(b'0' + ((number + at * 7 + at * at / 3) % 10) as u8);
    let head = format!("{number:02}");
    let text = head.chars().chain((0..context.saturating_sub(2)).map(digit)).collect();
    vec![Message { role: Role::User, parts: vec![Part::Text(text)] }]
}
