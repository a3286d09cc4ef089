//! A smaller model as the proposer. It sees the target's prompt with fewer visual tokens, chosen by where the target
//! looks; those that stay keep their positions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};

use super::drafter::{Decided, Drafter, run_embedded};
use super::{Guess, Known, Proposer, look, prune};
use crate::ModelError;
use crate::config::Config;
use crate::device::LoadOptions;
use crate::files::ModelFiles;
use crate::kernels::Threads;
use crate::network::Network;
use crate::processor::{Patches, Processor};
use crate::prompt::{ImageHash, Prompt, PromptMaker};
use crate::text::{Rows, Span};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// The draft's weights and what it makes images with.
#[derive(Debug)]
pub(crate) struct DraftModel {
    network: Network,
    processor: Processor,
    /// Embeddings of images that were encoded, the latest of them.
    seen: Mutex<HashMap<ImageHash, Tensor>>,
}

/// Images whose embeddings are kept.
const MOST_SEEN: usize = 512;
/// Tokens of the prompt that run in one call.
const CHUNK: usize = 1024;

/// The draft for one sequence.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) model: Arc<DraftModel>,
    pub(crate) widths: Vec<usize>,
    pub(crate) prune: f64,
    /// Made with the first guesses.
    pub(crate) drafter: Option<Drafter>,
}

impl Draft {
    /// Runs what the draft is to know of the prompt.
    fn start(&self, known: &Known<'_>) -> Result<Drafter, ModelError> {
        let (prompt, text) = (known.prompt, &self.model.network.text);
        let kept = self.kept(known)?;
        let ids: Vec<u32> = kept.iter().map(|&at| prompt.ids[at]).collect();
        let positions: Vec<_> = kept.iter().map(|&at| prompt.positions[at]).collect();
        let x = text.embed(&ids)?;
        for (image, embedding) in prompt.images.iter().zip(self.model.embeddings(prompt)?) {
            let inside = image.at..image.at + image.tokens;
            let rows: Vec<u32> =
                kept.iter().filter(|at| inside.contains(at)).map(|at| (at - image.at) as u32).collect();
            if rows.is_empty() {
                continue;
            }
            let rows = embedding.index_select(&Tensor::new(rows, x.device())?, 0)?;
            let first = kept.partition_point(|&at| at < image.at);
            // In place: `x` was made just now and has no other reader.
            x.slice_set(&rows.to_dtype(x.dtype())?.contiguous()?, 0, first)?;
        }
        let mut cache = text.new_cache();
        for first in (0..kept.len()).step_by(CHUNK) {
            let tokens = CHUNK.min(kept.len() - first);
            let span = Span { cache: &mut cache, tokens, rows: Rows::None, tree: None };
            let x = x.narrow(0, first, tokens)?.contiguous()?;
            run_embedded(text, &x, &positions[first..first + tokens], span)?;
        }
        Ok(Drafter::new(cache))
    }

    /// Tokens of the prompt that the draft sees: all text, and the visual ones that were not pruned.
    fn kept(&self, known: &Known<'_>) -> Result<Vec<usize>, ModelError> {
        let (tokens, visual) = (known.prompt.ids.len(), known.prompt.visual());
        if self.prune <= 0.0 || visual.is_empty() {
            return Ok((0..tokens).collect());
        }
        let layers = look::attention(known)?;
        let mass = |at: usize| layers.iter().map(|layer| layer[at]).sum::<f32>() / layers.len() as f32;
        let mass: Vec<f32> = visual.iter().map(|&at| mass(at)).collect();
        let mut kept = vec![true; tokens];
        visual.iter().for_each(|&at| kept[at] = false);
        prune::kept(&mass, self.prune).into_iter().for_each(|place| kept[visual[place]] = true);
        Ok((0..tokens).filter(|&at| kept[at]).collect())
    }
}

impl DraftModel {
    /// Loads the draft of a target whose prompts `maker` makes.
    ///
    /// # Errors
    /// As loading a model; where the two do not make the same tokens of the same text and images.
    pub(crate) fn load(
        files: &ModelFiles,
        maker: &PromptMaker,
        (device, threads): (&Device, &Threads),
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
        let weights = Weights::open(files)?;
        Ok(Self {
            network: Network::load(&config, &weights, device, options.dtype, threads)?,
            processor: Processor::open(files, &config.vision)?,
            seen: Mutex::default(),
        })
    }

    /// Embeddings of a prompt's images, in order.
    fn embeddings(&self, prompt: &Prompt) -> Result<Vec<Tensor>, ModelError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() > MOST_SEEN {
            seen.clear();
        }
        let encoded = prompt.images.iter().map(|image| {
            if let Some(embedding) = seen.get(&image.hash) {
                return Ok(embedding.clone());
            }
            let patches = self.processor.patches(&image.image)?;
            let stacked = Patches::stack(&[patches], self.network.text.device())?;
            let embedding = self.network.vision.forward(&stacked, &[image.grid])?;
            seen.insert(image.hash, embedding.clone());
            Ok(embedding)
        });
        encoded.collect()
    }
}

impl Proposer for Draft {
    fn propose(&mut self, known: &Known<'_>) -> Result<Guess, ModelError> {
        let mut drafter = match self.drafter.take() {
            Some(drafter) => drafter,
            None => self.start(known)?,
        };
        let decided = Decided { ids: known.decided, position: known.position };
        let levels = self.widths.len().min(known.room);
        let guess = drafter.grow(&self.model.network.text, decided, &self.widths[..levels])?;
        self.drafter = Some(drafter);
        Ok(guess)
    }
}
