//! The requests of one model, worked on together. A step encodes one piece of somebody's images, and runs one token of
//! every request that decodes and one chunk of prompts in a single call, so that the weights are read once and a long prompt
//! holds nobody up for more than its chunk. What must be shared out goes to the request that got a share least recently.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};
use spectemp_engine::VlmError;

use crate::ModelError;
use crate::images;
use crate::kernels::Threads;
use crate::kv::Cache;
use crate::memory::{Memory, Usage};
use crate::network::Network;
use crate::prefix::{ModelId, common};
use crate::prompt::PromptMaker;
use crate::sequence::{Completed, Sequence};
use crate::speculate::Pace;
use crate::visions::VisionKey;

/// A request waits until another's prompt that begins alike has run, where that saves so many tokens at least and a
/// quarter of those that it must run. Less, such as a system message, is sooner computed again.
const WORTH_WAITING: usize = 16;

/// What runs in one call.
struct Batch {
    /// Of the running requests.
    numbers: Vec<usize>,
    /// How many of all write.
    decoding: usize,
    /// Whether anybody was let guess; none where nobody can.
    guessing: Option<bool>,
    /// The time that making drafters took.
    making: Duration,
    /// Whether nothing but tokens is written.
    only_writes: bool,
}

/// A model on its device's thread, with its requests.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) id: ModelId,
    pub(crate) network: Arc<Network>,
    pub(crate) maker: Arc<PromptMaker>,
    /// Revision and type of the weights.
    pub(crate) weights: String,
    pub(crate) threads: Threads,
    /// Tokens of prompts in a step.
    pub(crate) prefill_chunk: usize,
    /// Requests that were not begun, in the order in which they came.
    pub(crate) waiting: VecDeque<Sequence>,
    pub(crate) active: Vec<Sequence>,
    /// Steps so far.
    pub(crate) clock: u64,
    /// Whether guessing ahead pays.
    pub(crate) pace: Pace,
}

impl Model {
    /// Whether a step would do anything.
    pub(crate) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.active.is_empty()
    }

    /// One step of all requests.
    pub(crate) fn step(&mut self, memory: &mut Memory) {
        self.clock += 1;
        self.drop_cancelled();
        self.admit(memory);
        self.active.sort_by_key(|sequence| sequence.served);
        self.encode_piece(memory);
        self.run_batch();
        self.retire(memory);
    }

    fn drop_cancelled(&mut self) {
        let all = self.waiting.iter_mut().chain(&mut self.active);
        all.filter(|sequence| sequence.is_cancelled())
            .for_each(|sequence| sequence.fail(VlmError::Cancelled));
        self.waiting.retain(|sequence| !sequence.is_gone());
        self.active.retain(|sequence| !sequence.is_gone());
    }

    /// Begins waiting requests in their order, as far as the memory reaches. One whose prompt another is computing just
    /// now waits for that without holding up those behind it.
    fn admit(&mut self, memory: &mut Memory) {
        let mut full = false;
        for mut sequence in std::mem::take(&mut self.waiting) {
            if full || self.is_coming(&sequence, memory) {
                self.waiting.push_back(sequence);
                continue;
            }
            memory.set_usage(self.id, self.usage());
            match self.room_for(&sequence, memory) {
                Some(cache) => {
                    sequence.begin(cache, self.clock);
                    self.active.push(sequence);
                }
                None => {
                    full = true;
                    self.waiting.push_back(sequence);
                }
            }
        }
        memory.set_usage(self.id, self.usage());
    }

    /// The cache that a request begins with, where the memory reaches for all that may follow.
    fn room_for(&self, sequence: &Sequence, memory: &mut Memory) -> Option<Cache> {
        let (most, guesses) = (sequence.tokens_at_most(), sequence.guesses().promised);
        let cache = self.longest_prefix(sequence, memory);
        if memory.make_room(self.still_to_come(most, cache.len(), true) + guesses) {
            return Some(cache);
        }
        // A fork holds on to what it shares, one block of which it copies: without it a request may fit that needs all.
        drop(cache);
        memory
            .make_room(self.still_to_come(most, 0, true) + guesses)
            .then(|| self.network.text.metered_cache(&memory.meter))
    }

    /// Whether a running request is about to compute more of this prompt than anything holds now.
    fn is_coming(&self, sequence: &Sequence, memory: &Memory) -> bool {
        let keys = reusable(sequence);
        let coming = self.active.iter().filter(|other| other.is_filling());
        let most = coming.map(|other| common(&other.prompt.keys, keys)).max().unwrap_or(0);
        if most < WORTH_WAITING {
            return false;
        }
        let now = self.longest(sequence, memory);
        most.saturating_sub(now) >= WORTH_WAITING.max((keys.len() - now) / 4)
    }

    /// Tokens of the prompt that some cache holds.
    fn longest(&self, sequence: &Sequence, memory: &Memory) -> usize {
        let keys = reusable(sequence);
        let live = self.active.iter().map(|other| common(&other.prompt.keys, keys).min(other.cache.len()));
        live.max().unwrap_or(0).max(memory.kept.longest(self.id, keys))
    }

    /// A cache that begins with as much of the prompt as any does.
    fn longest_prefix(&self, sequence: &Sequence, memory: &mut Memory) -> Cache {
        let keys = reusable(sequence);
        let shared = |other: &Sequence| common(&other.prompt.keys, keys).min(other.cache.len());
        let live = self.active.iter().map(|other| (shared(other), other)).max_by_key(|(length, _)| *length);
        let kept = memory.kept.longest(self.id, keys);
        match live.filter(|(length, _)| *length > kept) {
            Some((length, other)) => other.cache.fork(length),
            None => {
                let empty = || self.network.text.metered_cache(&memory.meter);
                memory.kept.fork(self.id, keys).unwrap_or_else(empty)
            }
        }
    }

    /// What the running requests take and may still take.
    fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for sequence in &self.active {
            let (most, held) = (sequence.tokens_at_most(), sequence.cache.len());
            let guesses = sequence.guesses();
            usage.held += sequence.cache.bytes() + guesses.held;
            usage.promised += self.still_to_come(most, held, sequence.is_fresh()) + guesses.promised;
        }
        usage
    }

    /// Bytes that a request of so many tokens may still take once it holds some. A fresh one has only shared blocks, of
    /// which its first write copies the last. (Who forks a running one pays for the copy that either of them makes.)
    fn still_to_come(&self, most: usize, held: usize, fresh: bool) -> usize {
        let text = &self.network.text;
        let own = match fresh {
            false => held,
            true if text.forks_share() => held / Cache::BLOCK * Cache::BLOCK,
            true => 0,
        };
        text.cache_bytes(most).saturating_sub(text.cache_bytes(own))
    }

    /// Encodes one group of images for the first request that needs any.
    fn encode_piece(&mut self, memory: &mut Memory) {
        for number in 0..self.active.len() {
            if !self.active[number].wants_vision() {
                continue;
            }
            match catch_unwind(AssertUnwindSafe(|| self.encode_for(number, memory))) {
                Ok(Ok(false)) => continue,
                Ok(Ok(true)) => {}
                Ok(Err(error)) => self.active[number].fail(error.into()),
                Err(_) => {
                    self.active[number].fail(panicked());
                    memory.visions.clear(self.id);
                }
            }
            return;
        }
    }

    /// Encodes one group of a request's images; false where none is missing.
    fn encode_for(&mut self, number: usize, memory: &mut Memory) -> Result<bool, ModelError> {
        let missing = self.missing_images(number, memory);
        if missing.is_empty() {
            self.active[number].end_vision();
            return Ok(false);
        }
        self.active[number].served = self.clock;
        self.encode_group(number, &missing, memory)?;
        Ok(true)
    }

    /// Takes what the cache has of a request's images; gives the numbers of those that it has not, of equal ones the first.
    fn missing_images(&mut self, number: usize, memory: &mut Memory) -> Vec<usize> {
        let sequence = &mut self.active[number];
        let device = self.network.text.device();
        let width = self.network.config.text.hidden_size;
        let mut missing: Vec<usize> = Vec::new();
        for index in 0..sequence.prompt.images.len() {
            let image = &sequence.prompt.images[index];
            if sequence.embeds[index].is_some() || !sequence.needs(image) {
                continue;
            }
            let key = VisionKey { model: self.id, weights: &self.weights, image: image.hash };
            let equal = |other: &usize| sequence.prompt.images[*other].hash == image.hash;
            match memory.visions.get(&key, (image.tokens, width), device) {
                Some(embedding) => sequence.embeds[index] = Some(embedding),
                None if missing.iter().any(equal) => {}
                None => missing.push(index),
            }
        }
        missing
    }

    /// Encodes as many of the missing images as a step takes.
    fn encode_group(
        &mut self,
        number: usize,
        missing: &[usize],
        memory: &mut Memory,
    ) -> Result<(), ModelError> {
        let sequence = &mut self.active[number];
        let images = &sequence.prompt.images;
        let group = images::first_group(images, missing);
        let embeds = images::encode(&self.network, &self.maker.processor, images, group)?;
        let mut start = 0;
        for &index in group {
            let image = &images[index];
            // A copy of its own, so that the cache frees what it counts.
            let own = embeds.narrow(0, start, image.tokens)?.copy()?;
            start += image.tokens;
            let equal = images.iter().zip(&mut sequence.embeds).filter(|(other, _)| other.hash == image.hash);
            equal.for_each(|(_, slot)| *slot = Some(own.clone()));
            let key = VisionKey { model: self.id, weights: &self.weights, image: image.hash };
            memory.visions.put(&key, own);
        }
        sequence.encoded += start;
        Ok(())
    }

    /// Runs what all requests want next in one call.
    fn run_batch(&mut self) {
        let start = Instant::now();
        let Batch { numbers, decoding, guessing, making, only_writes } = self.prepare_batch();
        if numbers.is_empty() {
            return;
        }
        let before = self.written();
        let result = catch_unwind(AssertUnwindSafe(|| self.forward(&numbers)));
        let cause = match result {
            Ok(Ok(())) => {
                if let Some(guessed) = guessing.filter(|_| only_writes) {
                    let took = start.elapsed().saturating_sub(making);
                    self.pace.count_step(decoding, guessed, took, self.written() - before);
                }
                return;
            }
            Ok(Err(error)) => VlmError::from(error).to_string(),
            Err(_) => panicked().to_string(),
        };
        for number in numbers {
            self.active[number].fail(VlmError::Backend(cause.clone()));
        }
    }

    /// Lets guess who may, and says what runs.
    fn prepare_batch(&mut self) -> Batch {
        let mut left = self.prefill_chunk;
        let decoding = self.active.iter().filter(|sequence| sequence.is_decoding()).count();
        let pays = self.pace.wants_guesses(decoding);
        // A drafter is made piece by piece, one a step, and only while no prompt runs: nobody waits for more than a chunk.
        let mut may_make = !self.active.iter().any(|sequence| sequence.wants_prefill().is_some());
        let mut batch = Batch {
            numbers: Vec::new(),
            decoding,
            guessing: None,
            making: Duration::ZERO,
            only_writes: true,
        };
        for (number, sequence) in self.active.iter_mut().enumerate() {
            let share = sequence.wants_prefill().map_or(0, |rest| rest.min(left));
            if share == 0 && !sequence.wants_tokens() {
                continue;
            }
            left -= share;
            if share > 0 {
                sequence.served = self.clock;
            }
            batch.only_writes &= sequence.is_decoding();
            let text = &self.network.text;
            let guesses = sequence.may_guess(decoding, pays);
            if let Some(guesses) = guesses {
                *batch.guessing.get_or_insert(false) |= guesses;
            }
            let prepared = catch_unwind(AssertUnwindSafe(|| {
                let making = match guesses {
                    Some(true) => sequence.propose(text, may_make)?,
                    _ => None,
                };
                sequence.prepare(text, share)?;
                Ok::<_, ModelError>(making)
            }));
            match prepared {
                Ok(Ok(making)) => {
                    if let Some(piece) = making {
                        self.pace.count_piece(piece);
                        batch.making += piece.took;
                        may_make = false;
                    }
                    batch.numbers.push(number);
                }
                Ok(Err(error)) => sequence.fail(error.into()),
                Err(_) => sequence.fail(panicked()),
            }
        }
        batch
    }

    /// Tokens that the running requests have written.
    fn written(&self) -> usize {
        self.active.iter().map(|sequence| sequence.written().len()).sum()
    }

    fn forward(&mut self, batch: &[usize]) -> Result<(), ModelError> {
        let text = &self.network.text;
        let numbered = self.active.iter_mut().enumerate();
        let mut batch: Vec<&mut Sequence> =
            numbered.filter(|(number, _)| batch.contains(number)).map(|(_, sequence)| sequence).collect();
        let inputs: Vec<_> = batch.iter().filter_map(|sequence| sequence.input()).collect();
        let parts: Vec<&Tensor> = inputs.iter().map(|(x, _)| *x).collect();
        let x = if let [only] = parts[..] { only.clone() } else { Tensor::cat(&parts, 0)? };
        let positions = inputs.iter().flat_map(|(_, positions)| *positions).copied().collect::<Vec<_>>();
        let rotary = text.rotary(&positions)?;
        let mut spans: Vec<_> = batch.iter_mut().filter_map(|sequence| sequence.span()).collect();
        let hidden = text.forward_spans(&x, &rotary, &mut spans)?;
        drop(spans);
        let logits: Vec<f32> = match hidden {
            Some(hidden) => text.logits(&hidden)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?,
            None => Vec::new(),
        };
        advance(&self.threads, batch, &logits, text.vocab())
    }

    /// Answers what is done; what it leaves in its cache may be asked for again.
    fn retire(&mut self, memory: &mut Memory) {
        self.active.retain(|sequence| !sequence.is_gone());
        let (done, active) = std::mem::take(&mut self.active).into_iter().partition(Sequence::is_done);
        self.active = active;
        let mut answers = Vec::new();
        for Completed { keys, cache, generation, reply } in done.into_iter().filter_map(Sequence::complete) {
            self.pace.count_turn(generation.tokens.len());
            memory.keep_sequence(self.id, keys, cache);
            answers.push((reply, generation));
        }
        memory.set_usage(self.id, self.usage());
        memory.trim_kept();
        for (reply, generation) in answers {
            // A caller that went away does not want it.
            let _ = reply.send(Ok(generation));
        }
    }
}

/// Hands the rows of logits out, and draws from them on all threads.
fn advance(
    threads: &Threads,
    batch: Vec<&mut Sequence>,
    logits: &[f32],
    vocab: usize,
) -> Result<(), ModelError> {
    let mut rest = logits;
    let mut parts = Vec::with_capacity(batch.len());
    for sequence in batch {
        let (rows, after) = rest.split_at_checked(sequence.rows() * vocab).ok_or_else(|| {
            ModelError::Compute(candle_core::Error::Msg(
                "fewer rows of logits than were asked for".to_owned(),
            ))
        })?;
        rest = after;
        parts.push((sequence, rows));
    }
    threads.for_each(&mut parts, &|_, (sequence, rows)| {
        if let Err(error) = sequence.advance(rows, vocab) {
            sequence.fail(error.into());
        }
    });
    Ok(())
}

/// The keys of a prompt that a cache may stand for: the last token is always computed, for its logits.
fn reusable(sequence: &Sequence) -> &[u64] {
    let keys = &sequence.prompt.keys;
    &keys[..keys.len().saturating_sub(1)]
}

fn panicked() -> VlmError {
    VlmError::Backend("the model panicked at this request or one in its batch".to_owned())
}
