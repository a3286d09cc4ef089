//! Speed on a device: prefill, decode and the whole loop of the published 3B and 7B shapes with random weights that are
//! drawn there, beside HF transformers on the same card.
//!
//! Tokens are chosen on the device and looked up there: the host queues work and waits once, at the end of a run. Times are
//! of whole runs, after one that warms up. What is drawn differs from run to run; speed does not depend on it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{D, Device, Tensor};
use serde::Serialize;
use serde_json::json;
use spectemp_types::Plan;
use tempfile::TempDir;

use super::loops::{self, LoopRow, Pair};
use super::peer::{self, Peer};
use super::published::PublishedSize;
use super::report::Run;
use super::sizes;
use crate::config::Config;
use crate::device::LoadOptions;
use crate::files::ModelFiles;
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
    /// The whole loop, where it is wanted.
    pub loops: Option<GpuLoops>,
    /// A Python with torch and transformers; without it only ours is measured.
    pub python: Option<PathBuf>,
}

/// The whole loop: the first size is the target, the last the draft.
#[derive(Clone, Debug)]
pub struct GpuLoops {
    /// Questions that are asked about a video at once; a row for each number.
    pub questions: Vec<usize>,
    /// Whose tokenizer, chat template and prompts the target uses.
    pub target: ModelFiles,
    /// The same for the draft.
    pub draft: ModelFiles,
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
            loops: None,
            python: None,
        }
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
    /// The peer's, where there is one.
    pub peer: Option<GpuPeer>,
}

/// HF transformers on the same card.
#[derive(Clone, Debug, Serialize)]
pub struct GpuPeer {
    /// Milliseconds of each run, as ours.
    pub all_ms: Vec<f64>,
    /// The least of them.
    pub best_ms: f64,
    /// Its best time over ours: 2 is twice as fast as the peer.
    pub ratio_best: f64,
}

/// All figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct GpuReport {
    /// Where.
    pub device: String,
    /// In what type.
    pub dtype: String,
    /// The peer's versions, where there is one.
    pub peer: Option<String>,
    /// The figures.
    pub rows: Vec<GpuRow>,
    /// Those of the whole loop, with its target and draft.
    pub loops: Option<GpuLoopReport>,
}

/// Figures of the whole loop.
#[derive(Clone, Debug, Serialize)]
pub struct GpuLoopReport {
    /// Target and draft.
    pub models: [PublishedSize; 2],
    /// The plan with all settings.
    pub plan: Plan,
    /// A row for each number of questions.
    pub rows: Vec<LoopRow>,
}

/// Sequences decoded together.
const BATCHES: [usize; 3] = [1, 8, 32];

/// Measures; `progress` is told what is being done.
///
/// # Errors
/// [`ModelError::Device`] where the device is not there, [`ModelError::Compute`] where its memory is too small; where the peer
/// fails.
pub fn run_gpu(options: &GpuBenchOptions, progress: &mut dyn FnMut(&str)) -> Result<GpuReport, ModelError> {
    let device = options.device.open()?;
    let mut report = GpuReport {
        device: options.device.to_string(),
        dtype: options.dtype.to_string(),
        peer: None,
        rows: Vec::new(),
        loops: None,
    };
    for &size in &options.sizes {
        progress(&format!("{size}: drawing the weights"));
        let config = size.config();
        let folder = TempDir::new().map_err(unwritable)?;
        sizes::write(folder.path(), "config.json", config.to_string().as_bytes())?;
        let config = Config::parse(config.to_string().as_bytes())?;
        let network = Network::load(&config, &Weights::drawn(), &device, options.dtype, &Threads::new(0))?;
        let mut peer = options.peer(peer::MODEL, &[folder.path()])?;
        report.peer = peer.as_ref().map(|peer| peer.versions.clone());
        let bench = Bench { network, device: device.clone(), repeat: options.repeat };
        for work in GpuWork::all(options) {
            let mut row = bench.row(size, work)?;
            if let Some(peer) = &mut peer {
                row.compare(options.repeat, peer)?;
            }
            progress(&row.summary());
            report.rows.push(row);
        }
    }
    if let (Some(loops), Some(&target), Some(&draft)) =
        (&options.loops, options.sizes.first(), options.sizes.last())
    {
        progress(&format!("the loop of {target} and {draft}"));
        report.loops = Some(loops.run(options, [target, draft], progress)?);
    }
    Ok(report)
}

impl GpuBenchOptions {
    /// The peer on the same card, where there is one.
    fn peer(&self, script: &'static str, folders: &[&Path]) -> Result<Option<Peer>, ModelError> {
        let (device, dtype) = (self.device.to_string(), self.dtype.to_string());
        let start = |python: &PathBuf| {
            Peer::start_on(python, script, folders, (Threads::new(0).count(), &device, &dtype))
        };
        self.python.as_ref().map(start).transpose()
    }
}

impl GpuLoops {
    fn run(
        &self,
        options: &GpuBenchOptions,
        models: [PublishedSize; 2],
        progress: &mut dyn FnMut(&str),
    ) -> Result<GpuLoopReport, ModelError> {
        let folder = TempDir::new().map_err(unwritable)?;
        let [target, draft] = ["target", "draft"].map(|name| folder.path().join(name));
        sizes::write_style(models[0].config(), &target, &self.target)?;
        sizes::write_style(models[1].config(), &draft, &self.draft)?;
        let load = LoadOptions { device: options.device, dtype: options.dtype, ..LoadOptions::default() };
        let mut peer = options.peer(peer::LOOP, &[&target, &draft])?;
        let pair = Pair { target, draft, load, drawn: true, plan: loops::full_plan()? };
        let rows = pair.rows(peer.as_mut(), &self.questions, options.repeat, progress)?;
        Ok(GpuLoopReport { models, plan: pair.plan, rows })
    }
}

fn unwritable(source: std::io::Error) -> ModelError {
    ModelError::Read { path: std::env::temp_dir(), source }
}

impl GpuWork {
    /// Prefill, and decoding at each number of sequences.
    fn all(options: &GpuBenchOptions) -> Vec<Self> {
        let (tokens, context) = (options.tokens, options.context);
        let decodes = BATCHES.into_iter().map(|batch| Self::Decode { batch, tokens, context });
        [Self::Prefill { tokens: context }].into_iter().chain(decodes).collect()
    }

    /// What a run's time is divided by: the tokens of a sequence that decodes, else 1.
    fn steps(self) -> usize {
        if let Self::Decode { tokens, .. } = self { tokens } else { 1 }
    }

    /// Tokens that a run computes.
    fn tokens(self) -> usize {
        match self {
            Self::Prefill { tokens } => tokens,
            Self::Decode { batch, tokens, .. } => batch * tokens,
        }
    }
}

impl GpuRow {
    fn new(size: PublishedSize, work: GpuWork, seconds: &[f64]) -> Self {
        let all_ms: Vec<f64> = seconds.iter().map(|seconds| seconds * 1e3 / work.steps() as f64).collect();
        let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let best_ms = best * 1e3 / work.steps() as f64;
        Self { size, work, all_ms, best_ms, tokens_per_second: work.tokens() as f64 / best, peer: None }
    }

    /// Lets the peer do the same, after a run that warms up.
    fn compare(&mut self, repeat: u32, peer: &mut Peer) -> Result<(), ModelError> {
        let mut seconds = Vec::new();
        for round in 0..=repeat {
            let run: Run = peer.ask(&json!(self.work))?;
            seconds.extend((round > 0).then_some(run.seconds));
        }
        let theirs = Self::new(self.size, self.work, &seconds);
        let ratio_best = theirs.best_ms / self.best_ms;
        self.peer = Some(GpuPeer { all_ms: theirs.all_ms, best_ms: theirs.best_ms, ratio_best });
        Ok(())
    }

    fn summary(&self) -> String {
        let Self { size, work, best_ms, tokens_per_second, peer, .. } = self;
        let ours = format!("{size}: {work:?}: {best_ms:.2} ms, {tokens_per_second:.0} tokens/s");
        match peer {
            None => ours,
            Some(peer) => format!("{ours}, peer {:.2} ms, ratio {:.2}", peer.best_ms, peer.ratio_best),
        }
    }
}

struct Bench {
    network: Network,
    device: Device,
    repeat: u32,
}

impl Bench {
    fn row(&self, size: PublishedSize, work: GpuWork) -> Result<GpuRow, ModelError> {
        let seconds = match work {
            GpuWork::Prefill { tokens } => self.prefill(tokens)?,
            GpuWork::Decode { batch, tokens, context } => self.decode(batch, tokens, context)?,
        };
        Ok(GpuRow::new(size, work, &seconds))
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
        let config = Config::parse(PublishedSize::Tiny.config().to_string().as_bytes()).unwrap();
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
    fn the_loop_runs_to_its_answer_on_drawn_weights() {
        let demo = |role: &str| {
            ModelFiles::folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo").join(role))
        };
        let loops = GpuLoops { questions: vec![2], target: demo("target"), draft: demo("draft") };
        let options = GpuBenchOptions {
            device: DeviceChoice::Cpu,
            dtype: DTypeChoice::F32,
            sizes: vec![PublishedSize::Tiny],
            repeat: 1,
            context: 8,
            tokens: 2,
            loops: Some(loops),
            python: None,
        };
        let report = run_gpu(&options, &mut |_| {}).unwrap();
        assert_eq!(report.rows.len(), 1 + BATCHES.len());
        let loops = report.loops.unwrap();
        assert_eq!(loops.models, [PublishedSize::Tiny; 2]);
        assert_eq!((loops.rows.len(), loops.rows[0].questions, loops.rows[0].totals.rounds), (1, 2, 8));
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
