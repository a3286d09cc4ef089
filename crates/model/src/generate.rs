//! One generation: prompt, reuse, vision, prefill in chunks, tokens one by one, scores of candidates.
//! Runs on the model's own thread; everything here is in order and nothing waits.

use std::time::Instant;

use candle_core::{DType, Tensor};
use spectemp_engine::{Generation, Request, TokenRecord};
use spectemp_types::{StageTimes, TokenCounts, TurnFinish};

use crate::ModelError;
use crate::kv::Cache;
use crate::network::Network;
use crate::prefix::{PrefixCache, VisionCache};
use crate::processor::Patches;
use crate::prompt::{Prompt, PromptImage, PromptMaker, text_key};
use crate::rope::{Position, next_position};
use crate::sample::{Sampler, log_sum};
use crate::text::Rows;
use crate::tokenizer::Detokenizer;

/// Patches that go through the vision tower in one call; images are grouped up to it.
const VISION_PATCHES: usize = 4096;

/// All that the model's thread owns.
#[derive(Debug)]
pub(crate) struct Generator {
    pub(crate) network: Network,
    pub(crate) maker: PromptMaker,
    pub(crate) prefixes: PrefixCache,
    pub(crate) visions: VisionCache,
    pub(crate) eos: Vec<u32>,
    pub(crate) context_tokens: usize,
    pub(crate) prefill_chunk: usize,
}

/// A sequence while it is worked on.
pub(crate) struct Run {
    pub(crate) prompt: Prompt,
    pub(crate) cache: Cache,
    /// What follows the prompt in the cache or will be next.
    pub(crate) generated: Vec<u32>,
    /// Position of the first token after the prompt.
    pub(crate) next: u32,
}

impl Generator {
    /// `stopped` is asked between tokens, chunks and vision calls.
    pub(crate) fn generate(
        &mut self,
        request: &Request,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Generation, ModelError> {
        let prompt = self.maker.make(&request.messages)?;
        self.check_length(&prompt, request)?;
        let visual: usize = prompt.images.iter().map(|image| image.tokens).sum();
        let cache = self.prefixes.take(&prompt.keys)?.unwrap_or_else(|| self.network.text.new_cache());
        let mut counts = TokenCounts {
            text: (prompt.ids.len() - visual) as u64,
            visual: visual as u64,
            reused: cache.len() as u64,
            generated: 0,
        };
        let next = next_position(&prompt.positions);
        let mut run = Run { prompt, cache, generated: Vec::new(), next };
        let mut times = StageTimes::default();
        let result = self.work(&mut run, request, &mut times, stopped);
        // Also what a cancelled call prefilled can be used by the next; a failed one may have left layers of unequal length.
        if matches!(result, Ok(_) | Err(ModelError::Cancelled)) {
            let mut keys = std::mem::take(&mut run.prompt.keys);
            keys.extend(run.generated.iter().copied().map(text_key));
            self.prefixes.put(keys, run.cache);
        }
        let mut generation = result?;
        let ended = generation.finish == TurnFinish::EndOfTurn;
        counts.generated = generation.tokens.len() as u64 + u64::from(ended);
        generation.counts = counts;
        generation.times = times;
        Ok(generation)
    }

    fn check_length(&self, prompt: &Prompt, request: &Request) -> Result<(), ModelError> {
        let (tokens, max_new, limit) =
            (prompt.ids.len(), request.max_new_tokens as usize, self.context_tokens);
        if tokens + max_new > limit {
            return Err(ModelError::TooLong { tokens, max_new, limit });
        }
        Ok(())
    }

    fn work(
        &mut self,
        run: &mut Run,
        request: &Request,
        times: &mut StageTimes,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Generation, ModelError> {
        let clock = Instant::now();
        let embeds = self.encode_images(run, stopped)?;
        times.vision_ms = milliseconds(clock);
        let clock = Instant::now();
        let logits = self.prefill(run, &embeds, stopped)?;
        times.prefill_ms = milliseconds(clock);
        let clock = Instant::now();
        let mut generation = self.decode(run, logits, request, stopped)?;
        if let Some(score) = &request.score {
            generation.scores = Some(self.score(run, &generation, score)?);
        }
        times.generate_ms = milliseconds(clock);
        Ok(generation)
    }

    /// Embeddings of the images that are not in the cache, none for those that are.
    fn encode_images(
        &mut self,
        run: &Run,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<Tensor>>, ModelError> {
        let needed = |image: &PromptImage| image.at + image.tokens > run.cache.len();
        let images = &run.prompt.images;
        let mut embeds: Vec<Option<Tensor>> = images
            .iter()
            .map(|image| if needed(image) { self.visions.get(&image.hash) } else { None })
            .collect();
        let missing: Vec<usize> =
            (0..images.len()).filter(|&i| needed(&images[i]) && embeds[i].is_none()).collect();
        let mut rest = missing.as_slice();
        while !rest.is_empty() {
            stop_if(stopped)?;
            let mut patches = 0;
            let fits = rest.iter().take_while(|&&i| {
                patches += images[i].grid.patches();
                patches <= VISION_PATCHES
            });
            let (group, after) = rest.split_at(fits.count().max(1));
            for (&i, embedding) in group.iter().zip(self.encode_group(images, group)?) {
                self.visions.put(images[i].hash, embedding.clone());
                embeds[i] = Some(embedding);
            }
            rest = after;
        }
        Ok(embeds)
    }

    fn encode_group(&self, images: &[PromptImage], group: &[usize]) -> Result<Vec<Tensor>, ModelError> {
        let patches = group.iter().map(|&i| self.maker.processor.patches(&images[i].image));
        let patches = patches.collect::<Result<Vec<_>, _>>()?;
        let grids: Vec<_> = patches.iter().map(|patches| patches.grid).collect();
        let stacked = Patches::stack(&patches, self.network.text.device())?;
        let embeds = self.network.vision.forward(&stacked, &grids)?;
        let mut start = 0;
        let split = group.iter().map(|&i| {
            let tokens = images[i].tokens;
            // A copy of its own, so that the cache frees what it counts.
            let own = embeds.narrow(0, start, tokens)?.copy()?;
            start += tokens;
            Ok(own)
        });
        split.collect()
    }

    /// Runs what the cache lacks of the prompt; gives the last token's logits.
    fn prefill(
        &self,
        run: &mut Run,
        embeds: &[Option<Tensor>],
        stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<f32>, ModelError> {
        let total = run.prompt.ids.len();
        loop {
            stop_if(stopped)?;
            let start = run.cache.len();
            let end = total.min(start + self.prefill_chunk);
            let x = self.embed(&run.prompt, embeds, start, end)?;
            let rows = if end == total { Rows::Last } else { Rows::None };
            let hidden = self.forward(&x, &run.prompt.positions[start..end], &mut run.cache, rows)?;
            if let Some(hidden) = hidden {
                return self.logits(&hidden);
            }
        }
    }

    /// Embeddings of a stretch of the prompt, images included: `[end - start, hidden]`
    fn embed(
        &self,
        prompt: &Prompt,
        embeds: &[Option<Tensor>],
        start: usize,
        end: usize,
    ) -> Result<Tensor, ModelError> {
        let x = self.network.text.embed(&prompt.ids[start..end])?;
        for (image, embedding) in prompt.images.iter().zip(embeds) {
            let (from, to) = (image.at.max(start), (image.at + image.tokens).min(end));
            if let Some(embedding) = embedding
                && from < to
            {
                let rows =
                    embedding.narrow(0, from - image.at, to - from)?.contiguous()?.to_dtype(x.dtype())?;
                // In place: `x` was made just now and has no other reader.
                x.slice_set(&rows, 0, from - start)?;
            }
        }
        Ok(x)
    }

    fn decode(
        &self,
        run: &mut Run,
        mut logits: Vec<f32>,
        request: &Request,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Generation, ModelError> {
        let mut sampler = Sampler::new(request.sampling);
        let mut text = Detokenizer::new(&self.maker.tokenizer);
        let mut tokens = Vec::new();
        let mut finish = TurnFinish::Length;
        while tokens.len() < request.max_new_tokens as usize {
            stop_if(stopped)?;
            if !tokens.is_empty() {
                logits = self.step(run)?;
            }
            let id = sampler.draw(&logits).ok_or_else(not_finite)?;
            if self.eos.contains(&id) {
                finish = TurnFinish::EndOfTurn;
                break;
            }
            let logprob = f64::from(logits[id as usize]) - log_sum(&logits);
            run.generated.push(id);
            tokens.push(TokenRecord { id: Some(id), logprob, text_end: text.push(id)? });
            if request.is_done(text.text()) {
                finish = TurnFinish::Stop;
                break;
            }
        }
        let text = text.finish()?;
        if let Some(last) = tokens.last_mut() {
            last.text_end = text.len();
        }
        let (counts, times) = (TokenCounts::default(), StageTimes::default());
        Ok(Generation { text, tokens, finish, counts, times, scores: None })
    }

    /// Runs the last generated token; gives the next one's logits.
    fn step(&self, run: &mut Run) -> Result<Vec<f32>, ModelError> {
        let after = run.cache.len() - run.prompt.ids.len();
        let ids = &run.generated[after..];
        let hidden = self.forward_text(ids, run.next + after as u32, &mut run.cache, Rows::Last)?;
        self.logits(&hidden)
    }

    /// Text tokens from a position on.
    pub(crate) fn forward_text(
        &self,
        ids: &[u32],
        position: u32,
        cache: &mut Cache,
        rows: Rows,
    ) -> Result<Tensor, ModelError> {
        let positions: Vec<Position> = (position..).take(ids.len()).map(|at| [at; 3]).collect();
        let hidden = self.forward(&self.network.text.embed(ids)?, &positions, cache, rows)?;
        hidden.ok_or_else(|| ModelError::Prompt("no rows were asked for".to_owned()))
    }

    fn forward(
        &self,
        x: &Tensor,
        positions: &[Position],
        cache: &mut Cache,
        rows: Rows,
    ) -> Result<Option<Tensor>, ModelError> {
        let rotary = self.network.text.rotary(positions)?;
        self.network.text.forward(x, &rotary, cache, rows)
    }

    /// Logits of all given rows, one after the other.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Result<Vec<f32>, ModelError> {
        Ok(self.network.text.logits(hidden)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }
}

fn stop_if(stopped: &dyn Fn() -> bool) -> Result<(), ModelError> {
    if stopped() { Err(ModelError::Cancelled) } else { Ok(()) }
}

pub(crate) fn not_finite() -> ModelError {
    ModelError::Compute(candle_core::Error::Msg("logits are not finite numbers".to_owned()))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
