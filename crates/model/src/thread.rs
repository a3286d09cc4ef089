//! A device's thread: it owns the weights of all models that were loaded on it and runs their requests in steps, one step of
//! each model after the other. While one model's request decodes, another's prompt is prefilled and a third's frames are
//! encoded, each for one step at a time. Callers wait without blocking.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use candle_core::Device;

use crate::ModelError;
use crate::batch::Model;
use crate::config::Config;
use crate::device::{DTypeChoice, LoadOptions};
use crate::kernels::{KvMeter, Threads};
use crate::memory::{Memory, default_budget};
use crate::network::Network;
use crate::prefix::ModelId;
use crate::sequence::Sequence;
use crate::visions::{EmbeddingTier, VisionCache};
use crate::weights::Weights;

/// The thread of one device, on which target and draft are loaded. It ends with the last model and handle.
#[derive(Debug)]
pub struct DeviceThread {
    pub(crate) device: Device,
    pub(crate) threads: Threads,
    pub(crate) meter: KvMeter,
    /// Most bytes of keys and values of all its models.
    pub(crate) budget: usize,
    inbox: mpsc::Sender<Message>,
    next: AtomicU64,
    /// What was loaded, so that the same checkpoint's weights are held once.
    loaded: Mutex<Vec<(String, Weak<LoadedModel>)>>,
    /// Weights that are held, by revision and type: a model and what guesses with it have the same ones.
    networks: Mutex<Vec<(String, Weak<Network>)>>,
}

/// A model on a device's thread; the weights go with the last of its handles.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    pub(crate) id: ModelId,
    /// Bytes of keys and values per block of tokens.
    pub(crate) block_bytes: usize,
    pub(crate) thread: Arc<DeviceThread>,
}

enum Message {
    Open(Box<Model>),
    Submit(ModelId, Box<Sequence>),
    Close(ModelId),
}

impl DeviceThread {
    /// Starts the thread for the device, the threads and the memory that the options name; `tier` keeps vision embeddings
    /// beyond this process.
    ///
    /// # Errors
    /// [`ModelError::Device`] where the device is not there or no thread can be started.
    pub fn start(
        options: &LoadOptions,
        tier: Option<Arc<dyn EmbeddingTier>>,
    ) -> Result<Arc<Self>, ModelError> {
        let meter = KvMeter::default();
        let budget = options.kv_cache_bytes.unwrap_or_else(default_budget);
        let visions = VisionCache::new(options.vision_cache_bytes, tier);
        let memory = Memory::new(meter.clone(), budget, options.prefix_cache_bytes, visions);
        let (inbox, messages) = mpsc::channel();
        std::thread::Builder::new()
            .name("spectemp-model".to_owned())
            .spawn(move || work(&messages, memory))
            .map_err(|error| ModelError::Device(format!("the model's thread cannot be started: {error}")))?;
        Ok(Arc::new(Self {
            device: options.device.open()?,
            threads: Threads::new(options.threads.unwrap_or(0)),
            meter,
            budget,
            inbox,
            next: AtomicU64::new(1),
            loaded: Mutex::default(),
            networks: Mutex::default(),
        }))
    }

    /// Bytes of keys and values that are held now, by running requests and for later ones. What is shared counts once.
    pub fn kv_bytes(&self) -> usize {
        self.meter.bytes()
    }

    /// The model of this name, which says all that it was loaded from and how, or else the one that `load` makes.
    pub(crate) fn open(
        self: &Arc<Self>,
        name: String,
        load: impl FnOnce(ModelId) -> Result<Model, ModelError>,
    ) -> Result<Arc<LoadedModel>, ModelError> {
        // Held while loading: a second caller of the same name is to find the first one's weights.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|(_, model)| model.strong_count() > 0);
        let same = loaded.iter().find(|(other, _)| *other == name);
        if let Some(model) = same.and_then(|(_, model)| model.upgrade()) {
            return Ok(model);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let model = load(id)?;
        let block_bytes = model.network.text.cache_bytes(1);
        self.send(Message::Open(Box::new(model)))?;
        let model = Arc::new(LoadedModel { id, block_bytes, thread: Arc::clone(self) });
        loaded.push((name, Arc::downgrade(&model)));
        Ok(model)
    }

    /// The weights of a revision: those that are held already, or else what `weights` opens, read now.
    ///
    /// # Errors
    /// As [`Network::load`].
    pub(crate) fn network(
        &self,
        (revision, dtype): (&str, DTypeChoice),
        config: &Config,
        weights: impl FnOnce() -> Result<Weights, ModelError>,
    ) -> Result<Arc<Network>, ModelError> {
        let name = format!("{revision}-{dtype:?}");
        // Held while loading, as above.
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        networks.retain(|(_, network)| network.strong_count() > 0);
        let same = networks.iter().find(|(other, _)| *other == name);
        if let Some(network) = same.and_then(|(_, network)| network.upgrade()) {
            return Ok(network);
        }
        let network = Arc::new(Network::load(config, &weights()?, &self.device, dtype, &self.threads)?);
        networks.push((name, Arc::downgrade(&network)));
        Ok(network)
    }

    fn send(&self, message: Message) -> Result<(), ModelError> {
        let gone = |_| ModelError::Device("the model's thread has ended".to_owned());
        self.inbox.send(message).map_err(gone)
    }
}

impl LoadedModel {
    /// Hands a request over.
    pub(crate) fn submit(&self, sequence: Sequence) -> Result<(), ModelError> {
        self.thread.send(Message::Submit(self.id, Box::new(sequence)))
    }
}

impl Drop for LoadedModel {
    fn drop(&mut self) {
        // A thread that has ended has closed it already.
        let _ = self.thread.send(Message::Close(self.id));
    }
}

/// The thread's life: it ends once nobody can send any more.
fn work(messages: &mpsc::Receiver<Message>, mut memory: Memory) {
    let mut models: BTreeMap<ModelId, Model> = BTreeMap::new();
    loop {
        let busy = models.values().any(Model::has_work);
        let next = if busy { messages.try_recv() } else { messages.recv().map_err(TryRecvError::from) };
        match next {
            Ok(message) => take(message, &mut models, &mut memory),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => models.values_mut().for_each(|model| model.step(&mut memory)),
        }
    }
}

fn take(message: Message, models: &mut BTreeMap<ModelId, Model>, memory: &mut Memory) {
    match message {
        Message::Open(model) => {
            models.insert(model.id, *model);
        }
        Message::Submit(id, sequence) => {
            // A sequence whose model was closed answers by being dropped.
            if let Some(model) = models.get_mut(&id) {
                model.waiting.push_back(*sequence);
            }
        }
        Message::Close(id) => {
            models.remove(&id);
            memory.forget(id);
        }
    }
}
