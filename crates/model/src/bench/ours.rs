//! Our side: the network alone, without tokenizer and processor; questions through all that serves them.

use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};

use super::Work;
use super::report::Run;
use super::served::Served;
use crate::config::Config;
use crate::files::ModelFiles;
use crate::kernels::Threads;
use crate::kv::Cache;
use crate::network::Network;
use crate::rope::Grid;
use crate::text::{Rows, Span};
use crate::weights::Weights;
use crate::{DTypeChoice, ModelError};

/// Every so many logits are compared.
const SAMPLE: usize = 101;

pub(super) struct Ours {
    network: Network,
    served: Served,
    /// The contexts of the decodes, filled by the first run that needs them.
    contexts: Vec<Cache>,
}

impl Ours {
    pub(super) fn load(folder: &Path, threads: usize, dtype: DTypeChoice) -> Result<Self, ModelError> {
        let files = ModelFiles::folder(folder);
        let path = folder.join("config.json");
        let config = std::fs::read(&path).map_err(|source| ModelError::Read { path, source })?;
        let config = Config::parse(&config)?;
        let threads = Threads::new(threads);
        let network = Network::load(&config, &Weights::open(&files)?, &Device::Cpu, dtype, &threads)?;
        Ok(Self { network, served: Served::load(folder, threads.count(), dtype)?, contexts: Vec::new() })
    }

    pub(super) fn run(&mut self, work: &Work) -> Result<Run, ModelError> {
        match *work {
            Work::Vision { frames, side } => self.vision(frames, side),
            Work::Prefill { tokens } => self.prefill(tokens),
            Work::Decode { tokens, context, batch } => self.decode(tokens, context, batch),
            Work::Questions { count, context, tokens } => self.served.questions(count, context, tokens),
        }
    }

    fn vision(&self, frames: usize, side: usize) -> Result<Run, ModelError> {
        let config = &self.network.config.vision;
        let rows = side / config.patch_size;
        let count = frames * rows * rows;
        let patches = patches(count, config.patch_values())?;
        let grids = vec![Grid { t: 1, h: rows, w: rows }; frames];
        let start = Clock::start();
        let out = self.network.vision.forward(&patches, &grids)?;
        let (seconds, cpu_seconds) = start.elapsed();
        let values = out.get(out.dim(0)? - 1)?.to_vec1()?;
        Ok(Run { seconds, cpu_seconds, values, ..Run::default() })
    }

    fn prefill(&self, tokens: usize) -> Result<Run, ModelError> {
        let ids = token_ids(tokens, 0);
        let mut cache = self.network.text.new_cache();
        let start = Clock::start();
        let logits = self.logits(&[&ids], std::slice::from_mut(&mut cache))?;
        let (seconds, cpu_seconds) = start.elapsed();
        Ok(Run { seconds, cpu_seconds, values: sampled(&logits), ..Run::default() })
    }

    fn decode(&mut self, tokens: usize, context: usize, batch: usize) -> Result<Run, ModelError> {
        let mut caches = std::mem::take(&mut self.contexts);
        while caches.len() < batch {
            let mut cache = self.network.text.new_cache();
            self.logits(&[&token_ids(context, caches.len())], std::slice::from_mut(&mut cache))?;
            caches.push(cache);
        }
        caches.iter_mut().for_each(|cache| cache.truncate(context));
        let vocab = self.network.text.vocab();
        let (mut last, mut chosen) = (vec![7_u32; batch], vec![Vec::with_capacity(tokens); batch]);
        let mut logits = Vec::new();
        let start = Clock::start();
        for _ in 0..tokens {
            let ids: Vec<&[u32]> = last.chunks_exact(1).collect();
            logits = self.logits(&ids, &mut caches[..batch])?;
            last = logits.chunks_exact(vocab).map(largest).collect();
            chosen.iter_mut().zip(&last).for_each(|(chosen, &token)| chosen.push(token));
        }
        let (seconds, cpu_seconds) = start.elapsed();
        self.contexts = caches;
        let values = sampled(&logits[..vocab.min(logits.len())]);
        Ok(Run { seconds, cpu_seconds, values, tokens: chosen.concat(), ..Run::default() })
    }

    /// The logits after these tokens of each sequence.
    fn logits(&self, ids: &[&[u32]], caches: &mut [Cache]) -> Result<Vec<f32>, ModelError> {
        let text = &self.network.text;
        let positions = ids.iter().zip(&*caches).flat_map(|(ids, cache)| {
            let from = cache.len() as u32;
            (from..from + ids.len() as u32).map(|at| [at; 3])
        });
        let rotary = text.rotary(&positions.collect::<Vec<_>>())?;
        let x = text.embed(&ids.concat())?;
        let span =
            |(cache, ids): (_, &&[u32])| Span { cache, tokens: ids.len(), rows: Rows::Last, tree: None };
        let mut spans: Vec<Span<'_>> = caches.iter_mut().zip(ids).map(span).collect();
        let hidden = text.forward_spans(&x, &rotary, &mut spans)?;
        let hidden = hidden.ok_or_else(|| ModelError::Prompt("no row came back".to_owned()))?;
        Ok(text.logits(&hidden)?.flatten_all()?.to_vec1()?)
    }
}

/// Wall time and time on all processors.
pub(super) struct Clock {
    wall: Instant,
    cpu: f64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { cpu: cpu_seconds(), wall: Instant::now() }
    }

    pub(super) fn elapsed(&self) -> (f64, f64) {
        (self.wall.elapsed().as_secs_f64(), cpu_seconds() - self.cpu)
    }
}

/// What this process has used so far.
#[expect(unsafe_code, reason = "the clock is a C function")]
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

// The two formulas are also those of bench/peers/model_hf.py.

/// Those of a sequence by its number.
fn token_ids(count: usize, sequence: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 7919 + 13 + sequence * 101) % 997) as u32).collect()
}

/// `[count, values]` in -1..1
fn patches(count: usize, values: usize) -> Result<Tensor, ModelError> {
    let value =
        |at: u64| (f64::from((at * 2_654_435_761 % (1 << 32)) as u32) / f64::from(1_u32 << 31) - 1.0) as f32;
    let all: Vec<f32> = (0..(count * values) as u64).map(value).collect();
    Ok(Tensor::from_vec(all, (count, values), &Device::Cpu)?)
}

fn sampled(logits: &[f32]) -> Vec<f32> {
    logits.iter().step_by(SAMPLE).copied().collect()
}

fn largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}
