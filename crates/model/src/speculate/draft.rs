//! A smaller model as the proposer. It sees the target's prompt with fewer visual tokens, chosen by where the target
//! looks or by what they are; those that stay keep their positions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use super::drafter::{Side, run_embedded};
use super::{Extent, Guess, Known, Piece, Proposer, density, look, prune};
use crate::ModelError;
use crate::config::Config;
use crate::device::{DTypeChoice, LoadOptions};
use crate::files::ModelFiles;
use crate::images;
use crate::kernels::KvMeter;
use crate::kv::Cache;
use crate::network::Network;
use crate::processor::Processor;
use crate::prompt::{ImageHash, Prompt, PromptImage, PromptMaker};
use crate::revision::revision;
use crate::rope::Position;
use crate::text::{Rows, Span};
use crate::thread::DeviceThread;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// The draft's weights and what it makes images with.
#[derive(Debug)]
pub(crate) struct DraftModel {
    /// Which checkpoint, and what its weights are held as.
    revision: (String, DTypeChoice),
    network: Arc<Network>,
    processor: Processor,
    /// Counts what its keys and values take.
    meter: KvMeter,
    /// Tokens of a prompt that run in one call.
    chunk: usize,
    /// Embeddings of images that were encoded, the latest of them.
    seen: Mutex<HashMap<ImageHash, Tensor>>,
    /// Most bytes of them that are kept for the next prompt.
    seen_bytes: usize,
}

/// The draft for one sequence.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) model: Arc<DraftModel>,
    pub(crate) reducer: Reducer,
    pub(crate) side: Side,
    /// Until the side is made.
    pub(crate) making: Option<Making>,
}

/// A drafter that is being made.
#[derive(Debug)]
pub(crate) struct Making {
    /// The prompt's images, as far as they are encoded.
    embeds: Vec<Option<Tensor>>,
    /// Once all of them are.
    input: Option<Input>,
    /// Calls in all.
    calls: usize,
}

/// What the draft runs of the prompt.
#[derive(Debug)]
struct Input {
    /// `[tokens, hidden]`
    x: Tensor,
    positions: Vec<Position>,
    /// What ran of it.
    cache: Cache,
}

/// How the visual tokens are made fewer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reducer {
    /// Those stay that the target looks at most, and every so many-th of the rest.
    Attention,
    /// Of those that are alike one stays, as their mean.
    Density,
}

/// Visual tokens that stay.
struct Reduced {
    /// Their places among the visual tokens, rising.
    places: Vec<usize>,
    /// What is fed for them, `[places, hidden]`.
    rows: Tensor,
}

impl Proposer for Draft {
    fn start(&mut self, known: &Known<'_>) -> Result<Option<Piece>, ModelError> {
        let Self { model, reducer, side, making } = self;
        let visual = known.prompt.visual().len();
        let tokens = side.prompt_tokens(known.prompt.ids.len() - visual, visual);
        side.start(|prune| {
            let under_way = making.get_or_insert_with(|| model.begin(known.prompt, tokens));
            let share = 1.0 / under_way.calls as f64;
            let made = model.advance(known, (*reducer, prune), under_way)?;
            if made.is_some() {
                *making = None;
            }
            Ok((share, made))
        })
    }

    fn propose(&mut self, known: &Known<'_>) -> Result<Guess, ModelError> {
        self.side.guess(known, &self.model.network.text)
    }

    fn most_bytes(&self, extent: Extent) -> usize {
        self.model.network.text.cache_bytes(self.side.most_tokens(extent))
    }

    fn held_bytes(&self) -> usize {
        let input = self.making.as_ref().and_then(|making| making.input.as_ref());
        self.side.held_bytes() + input.map_or(0, |input| input.cache.bytes())
    }
}

impl DraftModel {
    /// Opens the draft of a target whose prompts `maker` makes; its weights are shared with what else has them on the thread.
    ///
    /// # Errors
    /// As loading a model; where the two do not make the same tokens of the same text and images.
    pub(crate) fn open(
        thread: &DeviceThread,
        files: &ModelFiles,
        maker: &PromptMaker,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let config = Config::parse(&files.require("config.json")?)?;
        let differs = |what: &str| ModelError::Source {
            model: files.name().to_owned(),
            reason: format!("it cannot guess for the target: its {what} is another one"),
        };
        if Tokenizer::open(files)?.json()? != maker.tokenizer.json()? {
            return Err(differs("tokenizer"));
        }
        let vision = &config.vision;
        if (vision.patch_size, vision.spatial_merge_size) != (maker.patch, maker.settings.merge) {
            return Err(differs("patch size"));
        }
        let revision = revision(files, options.dtype)?;
        Ok(Self {
            network: thread.network((&revision, options.dtype), &config, || Weights::open(files))?,
            processor: Processor::open(files, &config.vision)?,
            meter: thread.meter.clone(),
            chunk: options.prefill_chunk.max(1),
            revision: (revision, options.dtype),
            seen: Mutex::default(),
            seen_bytes: options.vision_cache_bytes,
        })
    }

    /// Whether it is this checkpoint, held as `options` say.
    pub(crate) fn is(&self, files: &ModelFiles, options: &LoadOptions) -> Result<bool, ModelError> {
        Ok(self.revision == (revision(files, options.dtype)?, options.dtype))
    }

    /// Does the next piece of the making: runs what the draft is to know of the prompt, all text, and the visual tokens that
    /// stay, at their positions. Gives the cache after the last one.
    fn advance(
        &self,
        known: &Known<'_>,
        (reducer, prune): (Reducer, f64),
        making: &mut Making,
    ) -> Result<Option<Cache>, ModelError> {
        if !self.encode_piece(&known.prompt.images, &mut making.embeds)? {
            return Ok(None);
        }
        let input = match making.input.take() {
            Some(input) => input,
            None => self.input(known, &making.embeds, (reducer, prune))?,
        };
        let Input { x, positions, mut cache } = input;
        let first = cache.len();
        let tokens = self.chunk.min(positions.len() - first);
        let span = Span { cache: &mut cache, tokens, rows: Rows::None, tree: None };
        let chunk = x.narrow(0, first, tokens)?.contiguous()?;
        run_embedded(&self.network.text, &chunk, &positions[first..first + tokens], span)?;
        if cache.len() == positions.len() {
            return Ok(Some(cache));
        }
        making.input = Some(Input { x, positions, cache });
        Ok(None)
    }

    /// What is to run of the prompt.
    fn input(
        &self,
        known: &Known<'_>,
        embeds: &[Option<Tensor>],
        (reducer, prune): (Reducer, f64),
    ) -> Result<Input, ModelError> {
        let (prompt, text) = (known.prompt, &self.network.text);
        let visual = prompt.visual();
        let reduced = match embeds.iter().flatten().collect::<Vec<_>>()[..] {
            [] => None,
            ref all => Some(reduce(known, &Tensor::cat(all, 0)?, reducer, prune)?),
        };
        let mut kept = vec![true; prompt.ids.len()];
        visual.iter().for_each(|&at| kept[at] = false);
        reduced.iter().flat_map(|reduced| &reduced.places).for_each(|&place| kept[visual[place]] = true);
        let kept: Vec<usize> = (0..prompt.ids.len()).filter(|&at| kept[at]).collect();
        let ids: Vec<u32> = kept.iter().map(|&at| prompt.ids[at]).collect();
        let positions = kept.iter().map(|&at| prompt.positions[at]).collect();
        let x = text.embed(&ids)?;
        let mut done = 0;
        for image in &prompt.images {
            let place = |at: usize| kept.partition_point(|&other| other < at);
            let (from, to) = (place(image.at), place(image.at + image.tokens));
            if let Some(reduced) = reduced.as_ref().filter(|_| from < to) {
                let rows = reduced.rows.narrow(0, done, to - from)?;
                // In place: `x` was made just now and has no other reader.
                x.slice_set(&rows.to_dtype(x.dtype())?.contiguous()?, 0, from)?;
                done += to - from;
            }
        }
        Ok(Input { x, positions, cache: text.metered_cache(&self.meter) })
    }

    /// Begins a making: what of the images was encoded before, and in how many calls it will be done.
    fn begin(&self, prompt: &Prompt, tokens: usize) -> Making {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = |embedding: &Tensor| embedding.elem_count() * embedding.dtype().size_in_bytes();
        if seen.values().map(bytes).sum::<usize>() > self.seen_bytes {
            seen.clear();
        }
        let embeds: Vec<_> = prompt.images.iter().map(|image| seen.get(&image.hash).cloned()).collect();
        let (mut missing, mut groups) = (missing(&prompt.images, &embeds), 0_usize);
        while !missing.is_empty() {
            missing.drain(..images::first_group(&prompt.images, &missing).len());
            groups += 1;
        }
        // The last group and the first chunk share a call.
        let calls = groups.saturating_sub(1) + tokens.div_ceil(self.chunk).max(1);
        Making { embeds, input: None, calls }
    }

    /// Encodes the next group of images; true where none is missing after it.
    fn encode_piece(
        &self,
        prompt_images: &[PromptImage],
        embeds: &mut [Option<Tensor>],
    ) -> Result<bool, ModelError> {
        let missing = missing(prompt_images, embeds);
        if missing.is_empty() {
            return Ok(true);
        }
        let group = images::first_group(prompt_images, &missing);
        let encoded = images::encode(&self.network, &self.processor, prompt_images, group)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = 0;
        for &number in group {
            let image = &prompt_images[number];
            let own = encoded.narrow(0, start, image.tokens)?;
            start += image.tokens;
            let equal = prompt_images.iter().zip(&mut *embeds).filter(|(other, _)| other.hash == image.hash);
            equal.for_each(|(_, embed)| *embed = Some(own.clone()));
            seen.insert(image.hash, own);
        }
        Ok(group.len() == missing.len())
    }
}

/// Numbers of the images that were not encoded, of equal ones the first.
fn missing(images: &[PromptImage], embeds: &[Option<Tensor>]) -> Vec<usize> {
    let mut missing: Vec<usize> = Vec::new();
    for (number, image) in images.iter().enumerate() {
        if embeds[number].is_none() && missing.iter().all(|&other| images[other].hash != image.hash) {
            missing.push(number);
        }
    }
    missing
}

/// Makes the visual tokens fewer by a share of `prune`.
fn reduce(known: &Known<'_>, tokens: &Tensor, reducer: Reducer, prune: f64) -> Result<Reduced, ModelError> {
    if prune <= 0.0 {
        return Ok(Reduced { places: (0..tokens.dim(0)?).collect(), rows: tokens.clone() });
    }
    match reducer {
        Reducer::Attention => {
            let layers = look::attention(known)?;
            let mass = |at: usize| layers.iter().map(|layer| layer[at]).sum::<f32>() / layers.len() as f32;
            let mass: Vec<f32> = known.prompt.visual().into_iter().map(mass).collect();
            let places = prune::kept(&mass, prune);
            let chosen: Vec<u32> = places.iter().map(|&place| place as u32).collect();
            let rows = tokens.index_select(&Tensor::new(chosen, tokens.device())?, 0)?;
            Ok(Reduced { places, rows })
        }
        Reducer::Density => {
            let frames: Vec<usize> = known.prompt.images.iter().map(|image| image.tokens).collect();
            let peaks = density::peaks(tokens, &frames, prune)?;
            let rows = density::means(tokens, &peaks)?;
            Ok(Reduced { places: peaks.iter().map(|peak| peak.place).collect(), rows })
        }
    }
}
