//! The model behind [`spectemp_engine::Vlm`]: prompts are made by the caller, a [`DeviceThread`] runs them together with those
//! of others. A caller that goes away or cancels ends its generation between two steps.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use spectemp_engine::{Abilities, Generation, Message, ModelCard, PromptTemplates, Request, Vlm, VlmError};
use spectemp_types::ModelRevision;
use tokio::sync::oneshot;

use crate::ModelError;
use crate::batch::Model;
use crate::chat::ChatTemplate;
use crate::config::{Config, token_ids};
use crate::constrain::Constrainer;
use crate::device::LoadOptions;
use crate::files::ModelFiles;
use crate::kv::Cache;
use crate::processor::Processor;
use crate::prompt::{Prompt, PromptMaker};
use crate::revision::revision;
use crate::rope::PositionSettings;
use crate::sequence::{GUESS_TOKENS, Sequence};
use crate::speculate::{DraftModel, Extent, Pace, Speculation, SpeculationFigures, Speculator, Tally};
use crate::thread::{DeviceThread, LoadedModel};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use crate::writer::Writer;

/// A loaded Qwen2.5-VL checkpoint.
#[derive(Debug)]
pub struct QwenVlm {
    card: ModelCard,
    maker: Arc<PromptMaker>,
    eos: Arc<[u32]>,
    /// Width of the logits.
    vocab: usize,
    /// Made when a request first has a grammar.
    constrainer: OnceLock<Arc<Constrainer>>,
    speculation: Option<(Speculation, Option<Arc<DraftModel>>)>,
    tally: Arc<Tally>,
    loaded: Arc<LoadedModel>,
}

impl QwenVlm {
    /// Loads a checkpoint and starts a thread for it. Takes as long as reading the weights does: call it where blocking
    /// is allowed.
    ///
    /// # Errors
    /// See [`ModelError`]: a missing or broken file, a config that is not supported, a device that is not there.
    pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Self, ModelError> {
        Self::load_on(&DeviceThread::start(options, None)?, files, options)
    }

    /// Loads a checkpoint on a thread that may have others, with which it then shares device and memory. Where the same
    /// checkpoint was loaded on it before, its weights are shared. Of the options device, threads and memory are the
    /// thread's own.
    ///
    /// # Errors
    /// As [`QwenVlm::load`].
    pub fn load_on(
        thread: &Arc<DeviceThread>,
        files: &ModelFiles,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        Self::open(thread, files, options, (revision(files, options.dtype)?, || Weights::open(files)))
    }

    /// As [`QwenVlm::load_on`], with random weights that are drawn on the device; for measuring.
    pub(crate) fn drawn_on(
        thread: &Arc<DeviceThread>,
        files: &ModelFiles,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        Self::open(thread, files, options, (format!("drawn as {}", files.name()), || Ok(Weights::drawn())))
    }

    fn open(
        thread: &Arc<DeviceThread>,
        files: &ModelFiles,
        options: &LoadOptions,
        (revision, weights): (String, impl FnOnce() -> Result<Weights, ModelError>),
    ) -> Result<Self, ModelError> {
        let config = Config::parse(&files.require("config.json")?)?;
        let maker = Arc::new(prompt_maker(files, &config, options)?);
        let card = ModelCard {
            revision: ModelRevision { name: files.name().to_owned(), revision },
            pixels: maker.processor.pixels,
            templates: PromptTemplates {
                target: files.read_text("prompts/target.jinja")?,
                draft: files.read_text("prompts/draft.jinja")?,
            },
            context_tokens: config.text.max_position_embeddings as u32,
            abilities: Abilities { constraint: true, probabilities: true, seeds: true },
        };
        let eos = end_tokens(files, &config)?.into();
        let weights_name = format!("{}-{:?}", card.revision.revision, options.dtype).to_lowercase();
        let name = format!("{weights_name} {:?} {}", options.position_rule, options.prefill_chunk);
        let loaded = thread.open(name, |id| {
            Ok(Model {
                id,
                network: thread.network((&card.revision.revision, options.dtype), &config, weights)?,
                maker: Arc::clone(&maker),
                weights: weights_name,
                threads: thread.threads.clone(),
                prefill_chunk: options.prefill_chunk.max(1),
                waiting: Default::default(),
                active: Vec::new(),
                clock: 0,
                pace: Pace::default(),
            })
        })?;
        Ok(Self {
            card,
            maker,
            eos,
            vocab: config.text.vocab_size,
            constrainer: OnceLock::new(),
            speculation: None,
            tally: Arc::default(),
            loaded,
        })
    }

    /// Token ids of a conversation's prompt, for a peer.
    pub(crate) fn prompt_ids(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        Ok(self.maker.make(messages)?.ids)
    }

    /// Lets the model decode speculatively: the same text, token for token. `draft` is the checkpoint that
    /// a [`ProposerChoice`](crate::ProposerChoice) that needs one guesses with; it is loaded on the model's device.
    ///
    /// # Errors
    /// As [`QwenVlm::load`]; a draft of another tokenizer or patch size, or none where one is needed.
    pub fn speculating(
        mut self,
        speculation: Speculation,
        draft: Option<&ModelFiles>,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        self.set_speculation(speculation, draft, options)?;
        Ok(self)
    }

    /// The same of a model that may guess already; requests under way go on as they were.
    pub(crate) fn set_speculation(
        &mut self,
        speculation: Speculation,
        draft: Option<&ModelFiles>,
        options: &LoadOptions,
    ) -> Result<(), ModelError> {
        let draft = match (speculation.proposer.needs_draft(), draft) {
            (true, Some(files)) => Some(self.guessing_draft(files, options)?),
            (true, None) => {
                let reason = "a draft model is needed to guess with it: pass --draft".to_owned();
                return Err(ModelError::Source { model: self.card.revision.name.clone(), reason });
            }
            (false, _) => None,
        };
        self.speculation = Some((speculation, draft));
        Ok(())
    }

    /// The draft that is there already, with the embeddings that it has seen, or else another.
    fn guessing_draft(
        &self,
        files: &ModelFiles,
        options: &LoadOptions,
    ) -> Result<Arc<DraftModel>, ModelError> {
        if let Some((_, Some(draft))) = &self.speculation
            && draft.is(files, options)?
        {
            return Ok(Arc::clone(draft));
        }
        Ok(Arc::new(DraftModel::open(&self.loaded.thread, files, &self.maker, options)?))
    }

    /// How guesses fared so far.
    pub fn speculation_figures(&self) -> SpeculationFigures {
        self.tally.figures()
    }

    /// Who guesses for a prompt; nobody where the memory has no room for what that takes.
    fn speculator(&self, prompt: &Prompt, request: &Request) -> Option<Speculator> {
        let (speculation, draft) = self.speculation.as_ref()?;
        let proposer = speculation.proposer(draft.as_ref(), self.maker.image_token_id)?;
        let visual = prompt.visual().len();
        let extent = Extent {
            text: prompt.ids.len() - visual,
            visual,
            after: request.max_new_tokens as usize + GUESS_TOKENS,
            block_bytes: self.loaded.block_bytes,
        };
        let most_bytes = proposer.most_bytes(extent);
        let most = Sequence::most_tokens(prompt.ids.len(), request) + GUESS_TOKENS;
        (self.bytes(most) + most_bytes <= self.loaded.thread.budget).then(|| Speculator {
            proposer,
            most_sequences: speculation.most_sequences,
            tally: Arc::clone(&self.tally),
            most_bytes,
        })
    }

    /// Keys and values of so many tokens.
    fn bytes(&self, tokens: usize) -> usize {
        tokens.div_ceil(Cache::BLOCK) * self.loaded.block_bytes
    }

    /// What writes the output, held to the request's grammar.
    fn writer(&self, request: &Request) -> Result<Writer, ModelError> {
        let constraint = match (&request.grammar, self.constrainer.get()) {
            (None, _) => None,
            (Some(grammar), Some(constrainer)) => Some(constrainer.constraint(grammar, request)?),
            (Some(grammar), None) => {
                // Two first requests at once may both make one; one of them stays.
                let made = Arc::new(Constrainer::new(Arc::clone(&self.maker.tokenizer), self.vocab)?);
                Some(self.constrainer.get_or_init(|| made).constraint(grammar, request)?)
            }
        };
        Writer::new(request, &self.maker.tokenizer, &self.eos, constraint)
    }

    /// The prompt, where context and memory have room for it and what may follow.
    fn prompt(&self, request: &Request) -> Result<Prompt, ModelError> {
        let prompt = self.maker.make(&request.messages)?;
        let (tokens, max_new) = (prompt.ids.len(), request.max_new_tokens as usize);
        let limit = self.card.context_tokens as usize;
        if tokens + max_new > limit {
            return Err(ModelError::TooLong { tokens, max_new, limit });
        }
        let most = Sequence::most_tokens(tokens, request);
        let needed = self.bytes(most);
        let budget = self.loaded.thread.budget;
        if needed > budget {
            let (needed_mib, budget_mib) = (needed.div_ceil(1 << 20), budget >> 20);
            return Err(ModelError::NoRoom { tokens: most, needed_mib, budget_mib });
        }
        Ok(prompt)
    }
}

fn prompt_maker(
    files: &ModelFiles,
    config: &Config,
    options: &LoadOptions,
) -> Result<PromptMaker, ModelError> {
    Ok(PromptMaker {
        template: ChatTemplate::open(files)?,
        tokenizer: Arc::new(Tokenizer::open(files)?),
        processor: Processor::open(files, &config.vision)?,
        image_token_id: config.image_token_id,
        settings: PositionSettings {
            rule: options.position_rule,
            merge: config.vision.spatial_merge_size,
            tokens_per_second: config.vision.tokens_per_second,
        },
        patch: config.vision.patch_size,
    })
}

#[async_trait]
impl Vlm for QwenVlm {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    async fn generate(&self, request: Request) -> Result<Generation, VlmError> {
        let cancel = request.cancel.clone();
        if cancel.is_cancelled() {
            return Err(VlmError::Cancelled);
        }
        let prompt = self.prompt(&request)?;
        let writer = self.writer(&request)?;
        let (reply, result) = oneshot::channel();
        let speculator = self.speculator(&prompt, &request);
        let sequence = Sequence::new(prompt, request, writer, reply).with_speculator(speculator);
        self.loaded.submit(sequence)?;
        tokio::select! {
            // A finished generation counts, also where it was cancelled at the same moment.
            biased;
            result = result => {
                result.map_err(|_| VlmError::Backend("the model's thread has ended".to_owned()))?
            }
            () = cancel.cancelled() => Err(VlmError::Cancelled),
        }
    }
}

impl From<ModelError> for VlmError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Cancelled => Self::Cancelled,
            ModelError::TooLong { tokens, max_new, limit } => Self::TooLong { tokens, max_new, limit },
            ModelError::Prompt(_)
            | ModelError::Image(_)
            | ModelError::NoRoom { .. }
            | ModelError::Constraint(_) => Self::Request(error.to_string()),
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
