//! Speed on a device: prefill and decode of the published 3B and 7B shapes with random weights that are drawn there.
//!
//! Tokens are chosen on the device and looked up there: the host queues work and waits once, at the end of a run. Times are
//! of whole runs, after one that warms up. What is drawn differs from run to run; speed does not depend on it.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use candle_core::{D, Device, Tensor};
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::kernels::Threads;
use crate::kv::Cache;
use crate::network::Network;
use crate::text::{Rows, Span};
use crate::weights::Weights;
use crate::{DTypeChoice, DeviceChoice, ModelError};

/// What to measure.
#[derive(Clone, Debug)]
pub struct GpuBenchOptions {
    /// Where.
    pub device: DeviceChoice,
    /// In what type weights and activations are.
    pub dtype: DTypeChoice,
    /// Models.
    pub sizes: Vec<PublishedSize>,
    /// Timed runs of each work, after one that warms up.
    pub repeat: u32,
    /// Tokens of a prompt.
    pub context: usize,
    /// Tokens generated after it.
    pub tokens: usize,
}

impl Default for GpuBenchOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Cuda(0),
            dtype: DTypeChoice::Bf16,
            sizes: vec![PublishedSize::B7, PublishedSize::B3],
            repeat: 3,
            context: 2048,
            tokens: 64,
        }
    }
}

/// A published shape of Qwen2.5-VL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PublishedSize {
    /// Qwen2.5-VL-3B-Instruct.
    #[serde(rename = "3b")]
    B3,
    /// Qwen2.5-VL-7B-Instruct.
    #[serde(rename = "7b")]
    B7,
}

impl fmt::Display for PublishedSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::B3 => "3b",
            Self::B7 => "7b",
        })
    }
}

impl FromStr for PublishedSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "3b" => Ok(Self::B3),
            "7b" => Ok(Self::B7),
            _ => Err(format!("size {text:?} is unknown: use 3b or 7b")),
        }
    }
}

impl PublishedSize {
    /// The published config.json, as far as it is read.
    fn config(self) -> Value {
        let (hidden, inner, layers, heads, kv, vocab, tied) = match self {
            Self::B3 => (2048, 11_008, 36, 16, 2, 151_936, true),
            Self::B7 => (3584, 18_944, 28, 28, 4, 152_064, false),
        };
        json!({
            "model_type": "qwen2_5_vl",
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv,
            "vocab_size": vocab,
            "tie_word_embeddings": tied,
            "max_position_embeddings": 128_000,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "rope_scaling": { "type": "mrope", "mrope_section": [16, 24, 24] },
            "vision_config": { "out_hidden_size": hidden, "hidden_size": 1280, "tokens_per_second": 2 },
        })
    }
}

/// What was timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum GpuWork {
    /// The token after a prompt of text.
    Prefill {
        /// Its tokens.
        tokens: usize,
    },
    /// Greedy tokens one by one, of several sequences at a time.
    Decode {
        /// Sequences.
        batch: usize,
        /// Tokens of each.
        tokens: usize,
        /// Tokens before them.
        context: usize,
    },
}

/// One work of one size.
#[derive(Clone, Debug, Serialize)]
pub struct GpuRow {
    /// Which model.
    pub size: PublishedSize,
    /// What was timed.
    #[serde(flatten)]
    pub work: GpuWork,
    /// Milliseconds of each run; of a decode per token of every sequence.
    pub all_ms: Vec<f64>,
    /// The least of them.
    pub best_ms: f64,
    /// Tokens per second at that, of all sequences together.
    pub tokens_per_second: f64,
}

/// All figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct GpuReport {
    /// Where.
    pub device: String,
    /// In what type.
    pub dtype: String,
    /// The figures.
    pub rows: Vec<GpuRow>,
}

/// Sequences decoded together.
const BATCHES: [usize; 3] = [1, 8, 32];

/// Measures; `progress` is told what is being done.
///
/// # Errors
/// [`ModelError::Device`] where the device is not there, [`ModelError::Compute`] where its memory is too small.
pub fn run_gpu(options: &GpuBenchOptions, progress: &mut dyn FnMut(&str)) -> Result<GpuReport, ModelError> {
    let device = options.device.open()?;
    let mut report =
        GpuReport { device: options.device.to_string(), dtype: options.dtype.to_string(), rows: Vec::new() };
    for &size in &options.sizes {
        progress(&format!("{size}: drawing the weights"));
        let config = Config::parse(size.config().to_string().as_bytes())?;
        let network = Network::load(&config, &Weights::drawn(), &device, options.dtype, &Threads::new(0))?;
        let bench = Bench { network, device: device.clone(), repeat: options.repeat };
        let prefill = GpuWork::Prefill { tokens: options.context };
        let decodes =
            BATCHES.map(|batch| GpuWork::Decode { batch, tokens: options.tokens, context: options.context });
        for work in [prefill].into_iter().chain(decodes) {
            let row = bench.row(size, work)?;
            progress(&format!(
                "{size}: {work:?}: {:.2} ms, {:.0} tokens/s",
                row.best_ms, row.tokens_per_second
            ));
            report.rows.push(row);
        }
    }
    Ok(report)
}

struct Bench {
    network: Network,
    device: Device,
    repeat: u32,
}

impl Bench {
    fn row(&self, size: PublishedSize, work: GpuWork) -> Result<GpuRow, ModelError> {
        let (all, tokens) = match work {
            GpuWork::Prefill { tokens } => (self.prefill(tokens)?, tokens),
            GpuWork::Decode { batch, tokens, context } => {
                (self.decode(batch, tokens, context)?, batch * tokens)
            }
        };
        let steps = if let GpuWork::Decode { tokens, .. } = work { tokens } else { 1 };
        let best = all.iter().copied().fold(f64::INFINITY, f64::min);
        let all_ms = all.iter().map(|seconds| seconds * 1e3 / steps as f64).collect();
        let best_ms = best * 1e3 / steps as f64;
        Ok(GpuRow { size, work, all_ms, best_ms, tokens_per_second: tokens as f64 / best })
    }

    /// Seconds of each run but the first.
    fn timed(&self, mut run: impl FnMut() -> Result<(), ModelError>) -> Result<Vec<f64>, ModelError> {
        let mut all = Vec::new();
        for round in 0..=self.repeat {
            self.device.synchronize()?;
            let start = Instant::now();
            run()?;
            self.device.synchronize()?;
            if round > 0 {
                all.push(start.elapsed().as_secs_f64());
            }
        }
        Ok(all)
    }

    fn prefill(&self, tokens: usize) -> Result<Vec<f64>, ModelError> {
        self.timed(|| {
            let mut caches = vec![self.network.text.new_cache()];
            self.prompts(tokens, &mut caches).map(drop)
        })
    }

    fn decode(&self, batch: usize, tokens: usize, context: usize) -> Result<Vec<f64>, ModelError> {
        let mut caches: Vec<Cache> = (0..batch).map(|_| self.network.text.new_cache()).collect();
        let first = self.prompts(context, &mut caches)?;
        self.timed(|| {
            caches.iter_mut().for_each(|cache| cache.truncate(context));
            let mut ids = first.clone();
            for _ in 0..tokens {
                ids = self.step(&ids, &mut caches)?;
            }
            Ok(())
        })
    }

    /// Prefills each cache, and gives the tokens that follow: `[caches]`.
    fn prompts(&self, tokens: usize, caches: &mut [Cache]) -> Result<Tensor, ModelError> {
        let text = &self.network.text;
        let ids: Vec<u32> = (0..tokens as u32).map(|i| (i * 7919 + 13) % 397).collect();
        let positions: Vec<[u32; 3]> = (0..tokens as u32).map(|at| [at; 3]).collect();
        let rotary = text.rotary(&positions)?;
        let x = text.embed(&ids)?;
        let rows = caches.iter_mut().map(|cache| {
            let hidden = text.forward(&x, &rotary, cache, Rows::Last)?;
            hidden.ok_or_else(|| ModelError::Prompt("no row came back".to_owned()))
        });
        self.largest(&Tensor::cat(&rows.collect::<Result<Vec<_>, _>>()?, 0)?)
    }

    /// Feeds a token to each cache, and gives those that follow: nothing of them comes to the host.
    fn step(&self, ids: &Tensor, caches: &mut [Cache]) -> Result<Tensor, ModelError> {
        let text = &self.network.text;
        let positions: Vec<[u32; 3]> = caches.iter().map(|cache| [cache.len() as u32; 3]).collect();
        let rotary = text.rotary(&positions)?;
        let x = text.embed_there(ids)?;
        let mut spans: Vec<Span<'_>> =
            caches.iter_mut().map(|cache| Span { cache, tokens: 1, rows: Rows::Last, tree: None }).collect();
        let hidden = text.forward_spans(&x, &rotary, &mut spans)?;
        self.largest(&hidden.ok_or_else(|| ModelError::Prompt("no row came back".to_owned()))?)
    }

    /// The likeliest tokens of hidden rows.
    fn largest(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        Ok(self.network.text.logits(hidden)?.argmax(D::Minus1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench() -> Bench {
        let mut config = PublishedSize::B3.config();
        for (key, value) in
            [("hidden_size", 64), ("intermediate_size", 96), ("num_hidden_layers", 2), ("vocab_size", 400)]
        {
            config[key] = value.into();
        }
        (config["num_attention_heads"], config["rope_scaling"]["mrope_section"]) =
            (4.into(), json!([2, 3, 3]));
        config["vision_config"] = json!({ "out_hidden_size": 64, "hidden_size": 64, "depth": 1, "num_heads": 4, "intermediate_size": 64 });
        let config = Config::parse(config.to_string().as_bytes()).unwrap();
        let network =
            Network::load(&config, &Weights::drawn(), &Device::Cpu, DTypeChoice::F32, &Threads::new(2))
                .unwrap();
        Bench { network, device: Device::Cpu, repeat: 2 }
    }

    #[test]
    fn published_shapes_are_parsed_and_runs_are_counted() {
        for (size, layers, hidden) in [(PublishedSize::B3, 36, 2048), (PublishedSize::B7, 28, 3584)] {
            assert_eq!(size.to_string().parse(), Ok(size));
            let config = Config::parse(size.config().to_string().as_bytes()).unwrap();
            assert_eq!((config.text.num_hidden_layers, config.text.hidden_size), (layers, hidden));
            assert_eq!((config.text.head_dim(), config.vision.depth), (128, 32));
        }
        let bench = bench();
        for work in [GpuWork::Prefill { tokens: 9 }, GpuWork::Decode { batch: 3, tokens: 4, context: 7 }] {
            let row = bench.row(PublishedSize::B3, work).unwrap();
            assert_eq!(row.all_ms.len(), 2);
            assert!(row.tokens_per_second > 0.0 && row.best_ms <= row.all_ms[0]);
        }
    }

    #[test]
    fn tokens_chosen_on_the_device_are_those_chosen_here() {
        let bench = bench();
        let text = &bench.network.text;
        let mut caches: Vec<Cache> = (0..2).map(|_| text.new_cache()).collect();
        let first = bench.prompts(6, &mut caches).unwrap();
        let second = bench.step(&first, &mut caches).unwrap().to_vec1::<u32>().unwrap();
        let first = first.to_vec1::<u32>().unwrap();
        let mut alone = text.new_cache();
        bench.prompts(6, std::slice::from_mut(&mut alone)).unwrap();
        let rotary = text.rotary(&[[6; 3]]).unwrap();
        let hidden =
            text.forward(&text.embed(&first[..1]).unwrap(), &rotary, &mut alone, Rows::Last).unwrap();
        let logits: Vec<f32> =
            text.logits(&hidden.unwrap()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(crate::sample::argmax(&logits), Some(second[0]));
        assert_eq!((first[0], second[0]), (first[1], second[1]));
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let error = run_gpu(
            &GpuBenchOptions { device: DeviceChoice::Cuda(99), ..GpuBenchOptions::default() },
            &mut |_| {},
        );
        assert!(error.unwrap_err().to_string().contains("cuda:99"));
    }
}
