//! A smaller model as the proposer. It sees the target's prompt with fewer visual tokens, chosen by where the target
//! looks or by what they are; those that stay keep their positions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use candle_core::Tensor;

use super::drafter::{Side, run_embedded};
use super::{Extent, Guess, Known, Proposer, density, look, prune};
use crate::ModelError;
use crate::config::Config;
use crate::device::{DTypeChoice, LoadOptions};
use crate::files::ModelFiles;
use crate::kernels::KvMeter;
use crate::kv::Cache;
use crate::network::Network;
use crate::processor::{Patches, Processor};
use crate::prompt::{ImageHash, Prompt, PromptImage, PromptMaker};
use crate::revision::revision;
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
    /// Embeddings of images that were encoded, the latest of them.
    seen: Mutex<HashMap<ImageHash, Tensor>>,
    /// Most bytes of them that are kept for the next prompt.
    seen_bytes: usize,
}

/// Images that are encoded in one call.
const GROUP: usize = 8;
/// Tokens of the prompt that run in one call.
const CHUNK: usize = 1024;

/// The draft for one sequence.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) model: Arc<DraftModel>,
    pub(crate) reducer: Reducer,
    pub(crate) side: Side,
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
    fn start(&mut self, known: &Known<'_>) -> Result<Option<Duration>, ModelError> {
        self.side.start(|prune| self.model.start(known, self.reducer, prune))
    }

    fn propose(&mut self, known: &Known<'_>) -> Result<Guess, ModelError> {
        self.side.guess(known, &self.model.network.text)
    }

    fn most_bytes(&self, extent: Extent) -> usize {
        self.model.network.text.cache_bytes(self.side.most_tokens(extent))
    }

    fn held_bytes(&self) -> usize {
        self.side.held_bytes()
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
            revision: (revision, options.dtype),
            seen: Mutex::default(),
            seen_bytes: options.vision_cache_bytes,
        })
    }

    /// Whether it is this checkpoint, held as `options` say.
    pub(crate) fn is(&self, files: &ModelFiles, options: &LoadOptions) -> Result<bool, ModelError> {
        Ok(self.revision == (revision(files, options.dtype)?, options.dtype))
    }

    /// Runs what the draft is to know of the prompt: all text, and the visual tokens that stay, at their positions.
    fn start(&self, known: &Known<'_>, reducer: Reducer, prune: f64) -> Result<Cache, ModelError> {
        let (prompt, text) = (known.prompt, &self.network.text);
        let visual = prompt.visual();
        let reduced = match visual.is_empty() {
            true => None,
            false => Some(reduce(known, &self.visual(prompt)?, reducer, prune)?),
        };
        let mut kept = vec![true; prompt.ids.len()];
        visual.iter().for_each(|&at| kept[at] = false);
        reduced.iter().flat_map(|reduced| &reduced.places).for_each(|&place| kept[visual[place]] = true);
        let kept: Vec<usize> = (0..prompt.ids.len()).filter(|&at| kept[at]).collect();
        let ids: Vec<u32> = kept.iter().map(|&at| prompt.ids[at]).collect();
        let positions: Vec<_> = kept.iter().map(|&at| prompt.positions[at]).collect();
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
        let mut cache = text.metered_cache(&self.meter);
        for first in (0..kept.len()).step_by(CHUNK) {
            let tokens = CHUNK.min(kept.len() - first);
            let span = Span { cache: &mut cache, tokens, rows: Rows::None, tree: None };
            let x = x.narrow(0, first, tokens)?.contiguous()?;
            run_embedded(text, &x, &positions[first..first + tokens], span)?;
        }
        Ok(cache)
    }

    /// Embeddings of a prompt's visual tokens, `[tokens, hidden]`.
    fn visual(&self, prompt: &Prompt) -> Result<Tensor, ModelError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = |embedding: &Tensor| embedding.elem_count() * embedding.dtype().size_in_bytes();
        if seen.values().map(bytes).sum::<usize>() > self.seen_bytes {
            seen.clear();
        }
        let missing: Vec<&PromptImage> =
            prompt.images.iter().filter(|image| !seen.contains_key(&image.hash)).collect();
        for group in missing.chunks(GROUP) {
            let patches = group.iter().map(|image| self.processor.patches(&image.image));
            let patches = patches.collect::<Result<Vec<_>, _>>()?;
            let grids: Vec<_> = group.iter().map(|image| image.grid).collect();
            let stacked = Patches::stack(&patches, self.network.text.device())?;
            let embeddings = self.network.vision.forward(&stacked, &grids)?;
            let mut start = 0;
            for image in group {
                seen.insert(image.hash, embeddings.narrow(0, start, image.tokens)?);
                start += image.tokens;
            }
        }
        let all = prompt.images.iter().filter_map(|image| seen.get(&image.hash));
        Ok(Tensor::cat(&all.collect::<Vec<_>>(), 0)?)
    }
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
