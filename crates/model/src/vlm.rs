//! The model behind [`spectemp_engine::Vlm`]: one thread of its own holds the weights and runs requests in order; callers
//! wait without blocking. A caller that goes away or cancels ends its generation between two tokens.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use async_trait::async_trait;
use spectemp_engine::{Abilities, Generation, ModelCard, PromptTemplates, Request, Vlm, VlmError};
use spectemp_types::ModelRevision;
use tokio::sync::oneshot;

use crate::ModelError;
use crate::chat::ChatTemplate;
use crate::config::{Config, token_ids};
use crate::device::LoadOptions;
use crate::files::ModelFiles;
use crate::generate::Generator;
use crate::kernels::Threads;
use crate::network::Network;
use crate::prefix::{PrefixCache, VisionCache};
use crate::processor::Processor;
use crate::prompt::PromptMaker;
use crate::revision::revision;
use crate::rope::PositionSettings;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// A loaded Qwen2.5-VL checkpoint.
#[derive(Debug)]
pub struct QwenVlm {
    card: ModelCard,
    requests: mpsc::Sender<Job>,
    closing: Arc<AtomicBool>,
}

struct Job {
    request: Request,
    reply: oneshot::Sender<Result<Generation, VlmError>>,
}

impl QwenVlm {
    /// Loads a checkpoint and starts its thread. Takes as long as reading the weights does: call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// See [`ModelError`]: a missing or broken file, a config that is not supported, a device that is not there.
    pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Self, ModelError> {
        let config = Config::parse(&files.require("config.json")?)?;
        let maker = PromptMaker {
            template: ChatTemplate::open(files)?,
            tokenizer: Tokenizer::open(files)?,
            processor: Processor::open(files, &config.vision)?,
            image_token_id: config.image_token_id,
            settings: PositionSettings {
                rule: options.position_rule,
                merge: config.vision.spatial_merge_size,
                tokens_per_second: config.vision.tokens_per_second,
            },
            patch: config.vision.patch_size,
        };
        let card = ModelCard {
            revision: ModelRevision {
                name: files.name().to_owned(),
                revision: revision(files, options.dtype)?,
            },
            pixels: maker.processor.pixels,
            templates: PromptTemplates {
                target: files.read_text("prompts/target.jinja")?,
                draft: files.read_text("prompts/draft.jinja")?,
            },
            context_tokens: config.text.max_position_embeddings as u32,
            abilities: Abilities { constraint: false, probabilities: true, seeds: true },
        };
        let device = options.device.open()?;
        let threads = Threads::new(options.threads.unwrap_or(0));
        let network = Network::load(&config, &Weights::open(files)?, &device, options.dtype, &threads)?;
        let generator = Generator {
            eos: end_tokens(files, &config)?,
            context_tokens: config.text.max_position_embeddings,
            prefill_chunk: options.prefill_chunk.max(1),
            prefixes: PrefixCache::new(options.prefix_cache_bytes),
            visions: VisionCache::new(options.vision_cache_bytes),
            network,
            maker,
        };
        Self::start(card, generator)
    }

    fn start(card: ModelCard, mut generator: Generator) -> Result<Self, ModelError> {
        let (requests, inbox) = mpsc::channel::<Job>();
        let closing = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&closing);
        let run = move || {
            for job in inbox {
                let result = answer(&mut generator, &job, &stop);
                // A caller that went away does not want it.
                let _ = job.reply.send(result);
            }
        };
        std::thread::Builder::new()
            .name("spectemp-model".to_owned())
            .spawn(run)
            .map_err(|error| ModelError::Device(format!("the model's thread cannot be started: {error}")))?;
        Ok(Self { card, requests, closing })
    }
}

impl Drop for QwenVlm {
    /// The thread ends with the generation at hand, at its next token.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

fn answer(generator: &mut Generator, job: &Job, closing: &AtomicBool) -> Result<Generation, VlmError> {
    let stopped =
        || job.request.cancel.is_cancelled() || job.reply.is_closed() || closing.load(Ordering::Relaxed);
    if stopped() {
        return Err(VlmError::Cancelled);
    }
    // One request's panic must not take the model away from the others.
    match catch_unwind(AssertUnwindSafe(|| generator.generate(&job.request, &stopped))) {
        Ok(result) => result.map_err(VlmError::from),
        Err(_) => {
            generator.prefixes.clear();
            generator.visions.clear();
            Err(VlmError::Backend("the model panicked; its caches were emptied".to_owned()))
        }
    }
}

#[async_trait]
impl Vlm for QwenVlm {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    async fn generate(&self, request: Request) -> Result<Generation, VlmError> {
        let cancel = request.cancel.clone();
        let (reply, result) = oneshot::channel();
        let gone = || VlmError::Backend("the model's thread has ended".to_owned());
        self.requests.send(Job { request, reply }).map_err(|_| gone())?;
        tokio::select! {
            // A finished generation counts, also where it was cancelled at the same moment.
            biased;
            result = result => result.map_err(|_| gone())?,
            () = cancel.cancelled() => Err(VlmError::Cancelled),
        }
    }
}

impl From<ModelError> for VlmError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Cancelled => Self::Cancelled,
            ModelError::TooLong { tokens, max_new, limit } => Self::TooLong { tokens, max_new, limit },
            ModelError::Prompt(_) | ModelError::Image(_) => Self::Request(error.to_string()),
            other => Self::Backend(other.to_string()),
        }
    }
}

/// The generation config's end tokens, else the config's. Its sampling is not read: a request says how to draw.
fn end_tokens(files: &ModelFiles, config: &Config) -> Result<Vec<u32>, ModelError> {
    const FILE: &str = "generation_config.json";
    let Some(bytes) = files.read(FILE)? else { return Ok(config.eos_token_ids.clone()) };
    let json: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| ModelError::broken(FILE, error))?;
    let ids = token_ids(json.get("eos_token_id"));
    Ok(if ids.is_empty() { config.eos_token_ids.clone() } else { ids })
}
