//! Our side: the network alone, without tokenizer and processor.

use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};

use super::{Run, Work};
use crate::config::Config;
use crate::files::ModelFiles;
use crate::kernels::Threads;
use crate::kv::Cache;
use crate::network::Network;
use crate::rope::Grid;
use crate::text::Rows;
use crate::weights::Weights;
use crate::{DTypeChoice, ModelError};

/// Every so many logits are compared.
const SAMPLE: usize = 101;

pub(super) struct Ours {
    network: Network,
    /// The context of the decode, filled by the first run.
    context: Option<Cache>,
}

impl Ours {
    pub(super) fn load(folder: &Path, threads: usize, dtype: DTypeChoice) -> Result<Self, ModelError> {
        let files = ModelFiles::folder(folder);
        let path = folder.join("config.json");
        let config = std::fs::read(&path).map_err(|source| ModelError::Read { path, source })?;
        let config = Config::parse(&config)?;
        let threads = Threads::new(threads);
        let network = Network::load(&config, &Weights::open(&files)?, &Device::Cpu, dtype, &threads)?;
        Ok(Self { network, context: None })
    }

    pub(super) fn run(&mut self, work: &Work) -> Result<Run, ModelError> {
        match *work {
            Work::Vision { frames, side } => self.vision(frames, side),
            Work::Prefill { tokens } => self.prefill(tokens),
            Work::Decode { tokens, context } => self.decode(tokens, context),
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
        Ok(Run { seconds, cpu_seconds, values, tokens: Vec::new() })
    }

    fn prefill(&self, tokens: usize) -> Result<Run, ModelError> {
        let ids = token_ids(tokens);
        let mut cache = self.network.text.new_cache();
        let start = Clock::start();
        let logits = self.logits(&ids, &mut cache)?;
        let (seconds, cpu_seconds) = start.elapsed();
        Ok(Run { seconds, cpu_seconds, values: sampled(&logits), tokens: Vec::new() })
    }

    fn decode(&mut self, tokens: usize, context: usize) -> Result<Run, ModelError> {
        let mut cache = match self.context.take() {
            Some(cache) => cache,
            None => {
                let mut cache = self.network.text.new_cache();
                self.logits(&token_ids(context), &mut cache)?;
                cache
            }
        };
        cache.truncate(context)?;
        let (mut token, mut chosen, mut logits) = (7, Vec::with_capacity(tokens), Vec::new());
        let start = Clock::start();
        for _ in 0..tokens {
            logits = self.logits(&[token], &mut cache)?;
            token = largest(&logits);
            chosen.push(token);
        }
        let (seconds, cpu_seconds) = start.elapsed();
        self.context = Some(cache);
        Ok(Run { seconds, cpu_seconds, values: sampled(&logits), tokens: chosen })
    }

    /// The logits after these tokens.
    fn logits(&self, ids: &[u32], cache: &mut Cache) -> Result<Vec<f32>, ModelError> {
        let text = &self.network.text;
        let from = cache.len() as u32;
        let positions: Vec<[u32; 3]> = (from..from + ids.len() as u32).map(|at| [at; 3]).collect();
        let rotary = text.rotary(&positions)?;
        let hidden = text.forward(&text.embed(ids)?, &rotary, cache, Rows::Last)?;
        let hidden = hidden.ok_or_else(|| ModelError::Prompt("no row came back".to_owned()))?;
        Ok(text.logits(&hidden)?.flatten_all()?.to_vec1()?)
    }
}

/// Wall time and time on all processors.
struct Clock {
    wall: Instant,
    cpu: f64,
}

impl Clock {
    fn start() -> Self {
        Self { cpu: cpu_seconds(), wall: Instant::now() }
    }

    fn elapsed(&self) -> (f64, f64) {
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

fn token_ids(count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 7919 + 13) % 997) as u32).collect()
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
