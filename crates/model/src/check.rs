//! Compares a checkpoint with golden files of the reference implementation, stage by stage: positions, window order,
//! vision blocks, vision embeddings, hidden states, logits, greedy tokens. Needs neither processor nor chat template, goes by
//! the file's own positions and does not stop at the end token. Each stage works on the output of our own earlier ones.

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use serde::Serialize;

use crate::config::Config;
use crate::device::{DTypeChoice, LoadOptions};
use crate::files::ModelFiles;
use crate::golden::Golden;
use crate::kernels::Threads;
use crate::kv::Cache;
use crate::network::Network;
use crate::rope::{Position, PositionRule, PositionSettings, VisualSpan, next_position, positions};
use crate::text::Rows;
use crate::weights::Weights;
use crate::{ModelError, sample};

/// How to compare.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Largest `max|a-b| / max|b|` that passes; none: what is usual for the stage and the type of the weights.
    pub tolerance: Option<f64>,
    /// How to load the checkpoint.
    pub load: LoadOptions,
}

/// Largest errors that pass.
#[derive(Clone, Copy, Debug)]
struct Tolerances {
    vision: f64,
    language: f64,
}

impl CheckOptions {
    fn tolerances(&self) -> Tolerances {
        const EXACT: f64 = 1e-4;
        let (vision, language) = match self.load.dtype {
            DTypeChoice::F32 => (EXACT, EXACT),
            DTypeChoice::Bf16 => (0.15, 0.15),
            // The vision tower is not quantised.
            DTypeChoice::Q8_0 => (EXACT, 0.15),
            DTypeChoice::Q4K => (EXACT, 0.3),
        };
        let of = |usual| self.tolerance.unwrap_or(usual);
        Tolerances { vision: of(vision), language: of(language) }
    }
}

/// What came out, over all files.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// True where every stage of every file passed.
    pub passed: bool,
    /// In what type the weights were held.
    pub dtype: String,
    /// Each file.
    pub files: Vec<FileReport>,
}

/// One golden file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Its path as given.
    pub file: String,
    /// True where every stage passed.
    pub passed: bool,
    /// The stages that the file allows to compare.
    pub stages: Vec<StageReport>,
    /// Why the file could not be compared (to its end).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// `positions`, `windows`, `vision_blocks`, `vision_embeds`, `hidden_first`, `hidden_last`, `logits` or `greedy`.
    pub stage: String,
    /// `max|a-b| / max|b|`; for stages of whole numbers the share that differs; none where it was not run.
    pub error: Option<f64>,
    /// The largest error that passes; none where any does.
    pub tolerance: Option<f64>,
    /// Within the tolerance; for whole numbers: identical.
    pub passed: bool,
    /// What a reader should know.
    pub note: String,
}

/// Loads the checkpoint and compares it with each file.
///
/// # Errors
/// Where the checkpoint cannot be loaded. A golden file that cannot be used fails in the report.
pub fn run(
    files: &ModelFiles,
    goldens: &[PathBuf],
    options: &CheckOptions,
) -> Result<CheckReport, ModelError> {
    let config = Config::parse(&files.require("config.json")?)?;
    let device = options.load.device.open()?;
    let threads = Threads::new(options.load.threads.unwrap_or(0));
    let network = Network::load(&config, &Weights::open(files)?, &device, options.load.dtype, &threads)?;
    let files = goldens.iter().map(|path| check_file(&network, path, options)).collect::<Vec<_>>();
    let dtype = options.load.dtype.to_string();
    Ok(CheckReport { passed: files.iter().all(|file| file.passed), dtype, files })
}

fn check_file(network: &Network, path: &Path, options: &CheckOptions) -> FileReport {
    let (tolerances, dtype) = (options.tolerances(), options.load.dtype);
    let mut check = Check { network, tolerances, dtype, stages: Vec::new() };
    let result = Golden::open(path).and_then(|golden| check.file(path, &golden));
    let mut error = result.err().map(|error| error.to_string());
    if error.is_none() && check.stages.iter().all(|stage| stage.error.is_none()) {
        error = Some("nothing in the file can be compared".to_owned());
    }
    let passed = error.is_none() && check.stages.iter().all(|stage| stage.passed);
    FileReport { file: path.display().to_string(), passed, stages: check.stages, error }
}

struct Check<'a> {
    network: &'a Network,
    tolerances: Tolerances,
    dtype: DTypeChoice,
    stages: Vec<StageReport>,
}

impl Check<'_> {
    fn file(&mut self, path: &Path, golden: &Golden) -> Result<(), ModelError> {
        if let Some(ids) = golden.ids("input_ids")? {
            return self.whole_case(golden, &ids);
        }
        // Positions alone, of cases that lie beside this file.
        for case in golden.position_cases() {
            let beside = path.with_file_name(format!("{case}.safetensors"));
            let stage = format!("positions {case}");
            let other = Golden::open(&beside);
            match (
                other.and_then(|other| Ok((other.ids("input_ids")?, other))),
                golden.positions(&format!("{case}.position_ids"))?,
            ) {
                (Ok((Some(ids), other)), Some(wanted)) => self.positions(&stage, &other, &ids, &wanted)?,
                _ => self.skip(&stage, format!("not run: no input_ids in {}", beside.display())),
            }
        }
        Ok(())
    }

    fn whole_case(&mut self, golden: &Golden, ids: &[u32]) -> Result<(), ModelError> {
        let wanted = golden.positions("position_ids")?;
        let positions = match wanted {
            Some(wanted) if wanted.len() != ids.len() => {
                let reason = format!("{} positions for {} ids", wanted.len(), ids.len());
                return Err(ModelError::tensor("position_ids", reason));
            }
            Some(wanted) => {
                self.positions("positions", golden, ids, &wanted)?;
                wanted
            }
            None => self.own_positions(golden, ids, PositionRule::Published)?,
        };
        let vision = self.vision(golden)?;
        let x = self.embeds(ids, vision.as_ref())?;
        let mut cache = self.network.text.new_cache();
        let last = self.language(golden, &x, &positions, &mut cache)?;
        self.greedy(golden, last, &positions, &mut cache)
    }

    /// Passes where one of the two rules gives the file's positions.
    fn positions(
        &mut self,
        stage: &str,
        golden: &Golden,
        ids: &[u32],
        wanted: &[Position],
    ) -> Result<(), ModelError> {
        let share = |rule| -> Result<f64, ModelError> {
            let own = self.own_positions(golden, ids, rule)?;
            Ok(differing(&own, wanted))
        };
        let (published, newer) = (share(PositionRule::Published)?, share(PositionRule::Transformers5)?);
        let note = match (published == 0.0, newer == 0.0) {
            (true, true) => "both rules",
            (true, false) => "rule: published",
            (false, true) => "rule: transformers 5",
            (false, false) => "neither rule gives them",
        };
        self.exact(stage, published.min(newer), note.to_owned());
        Ok(())
    }

    fn own_positions(
        &self,
        golden: &Golden,
        ids: &[u32],
        rule: PositionRule,
    ) -> Result<Vec<Position>, ModelError> {
        let config = &self.network.config;
        let seconds = golden.floats("second_per_grid_ts")?.unwrap_or_default();
        let video = ids.contains(&config.video_token_id);
        let spans: Vec<VisualSpan> = golden
            .grids()?
            .into_iter()
            .enumerate()
            .map(|(i, grid)| {
                let step = seconds.get(i).copied().unwrap_or(1.0);
                VisualSpan { grid, seconds_per_step: video.then_some(step) }
            })
            .collect();
        let settings = PositionSettings {
            rule,
            merge: config.vision.spatial_merge_size,
            tokens_per_second: config.vision.tokens_per_second,
        };
        let visual: Vec<bool> = ids.iter().map(|&id| is_visual(config, id)).collect();
        positions(&visual, &spans, settings)
    }

    /// Our own embeddings where the file has pixels, else the file's, none for text.
    fn vision(&mut self, golden: &Golden) -> Result<Option<Tensor>, ModelError> {
        let tower = &self.network.vision;
        let device = self.network.text.device();
        let grids = golden.grids()?;
        if grids.is_empty() {
            return Ok(None);
        }
        let windows = tower.windows(&grids)?;
        for (key, own) in [
            ("window_index", &windows.order),
            ("cu_window_seqlens", &windows.window_bounds),
            ("cu_seqlens", &windows.image_bounds),
        ] {
            if let Some(wanted) = golden.ids(key)? {
                self.exact(&format!("windows {key}"), differing(own, &wanted), String::new());
            }
        }
        let Some(patches) = golden.patches(device)? else {
            let note = "not run: the file has no pixels; its own embeddings are used";
            self.skip("vision_embeds", note.to_owned());
            return golden.matrix("vision_embeds", device);
        };
        let blocks = tower.blocks(&patches, &windows)?;
        self.close(("vision_blocks", self.tolerances.vision), golden, "vision_blocks_last", &blocks)?;
        let embeds = tower.merge(&blocks, &windows)?;
        self.close(("vision_embeds", self.tolerances.vision), golden, "vision_embeds", &embeds)?;
        Ok(Some(embeds))
    }

    /// Token embeddings with the vision embeddings in the place of the pads.
    fn embeds(&self, ids: &[u32], vision: Option<&Tensor>) -> Result<Tensor, ModelError> {
        let text = self.network.text.embed(ids)?;
        let config = &self.network.config;
        let pads: Vec<usize> = (0..ids.len()).filter(|&i| is_visual(config, ids[i])).collect();
        let Some(vision) = vision else {
            return if pads.is_empty() {
                Ok(text)
            } else {
                Err(ModelError::Prompt(format!(
                    "{} image tokens, but neither pixels nor vision_embeds",
                    pads.len()
                )))
            };
        };
        if vision.dim(0)? != pads.len() {
            let reason = format!("{} embeddings for {} image tokens", vision.dim(0)?, pads.len());
            return Err(ModelError::Prompt(reason));
        }
        let mut rows: Vec<u32> = (0..ids.len() as u32).collect();
        for (number, &pad) in pads.iter().enumerate() {
            rows[pad] = (ids.len() + number) as u32;
        }
        let both = Tensor::cat(&[&text, &vision.to_dtype(text.dtype())?], 0)?;
        Ok(both.index_select(&Tensor::new(rows, text.device())?, 0)?)
    }

    /// Hidden states and logits of the whole prompt in one call; gives the last token's logits.
    fn language(
        &mut self,
        golden: &Golden,
        x: &Tensor,
        positions: &[Position],
        cache: &mut Cache,
    ) -> Result<Tensor, ModelError> {
        let text = &self.network.text;
        let rotary = text.rotary(positions)?;
        let layers = self.network.config.text.num_hidden_layers;
        let mut first = None;
        let normed = text.forward_seen(x, &rotary, cache, |number, output| {
            if number == 0 {
                first = Some(output.clone());
            }
        })?;
        let normed = normed.ok_or_else(|| ModelError::Prompt("an empty prompt".to_owned()))?;
        // The reference's list of hidden states ends with the normed one, also where that is the first layer's.
        let first = if layers == 1 { Some(normed.clone()) } else { first };
        if let Some(first) = first {
            self.close(("hidden_first", self.tolerances.language), golden, "hidden_first", &first)?;
        }
        self.close(("hidden_last", self.tolerances.language), golden, "hidden_last", &normed)?;
        let logits = text.logits(&normed)?;
        self.close(("logits", self.tolerances.language), golden, "logits", &logits)?;
        Ok(logits.narrow(0, positions.len() - 1, 1)?)
    }

    fn greedy(
        &mut self,
        golden: &Golden,
        mut logits: Tensor,
        positions: &[Position],
        cache: &mut Cache,
    ) -> Result<(), ModelError> {
        let Some(wanted) = golden.ids("generated")? else { return Ok(()) };
        let text = &self.network.text;
        let mut next = next_position(positions);
        let mut own = Vec::with_capacity(wanted.len());
        while own.len() < wanted.len() {
            let row: Vec<f32> = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let id =
                sample::argmax(&row).ok_or_else(|| ModelError::Prompt("logits are not finite".to_owned()))?;
            own.push(id);
            let rotary = text.rotary(&[[next; 3]])?;
            next += 1;
            let hidden = text.forward(&text.embed(&[id])?, &rotary, cache, Rows::Last)?;
            let hidden = hidden.ok_or_else(|| ModelError::Prompt("no hidden state".to_owned()))?;
            logits = text.logits(&hidden)?;
        }
        let note = match own.iter().zip(&wanted).position(|(a, b)| a != b) {
            Some(at) => format!("token {at} is {} instead of {}", own[at], wanted[at]),
            None => format!("{} tokens", own.len()),
        };
        let share = differing(&own, &wanted);
        if self.dtype == DTypeChoice::F32 {
            self.exact("greedy", share, note);
        } else {
            // Near equals change places under a coarser type; how far the logits may be off is said above.
            let note = format!("{note}; not counted with {}", self.dtype);
            self.report("greedy", Some(share), None, note);
        }
        Ok(())
    }

    /// A stage of floats, where the file holds it.
    fn close(
        &mut self,
        (stage, tolerance): (&str, f64),
        golden: &Golden,
        key: &str,
        own: &Tensor,
    ) -> Result<(), ModelError> {
        let Some(wanted) = golden.floats(key)? else { return Ok(()) };
        let own: Vec<f32> = own.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        if own.len() != wanted.len() {
            return Err(ModelError::tensor(key, format!("has {} values, ours {}", wanted.len(), own.len())));
        }
        self.report(stage, Some(relative_error(&own, &wanted)), Some(tolerance), String::new());
        Ok(())
    }

    fn exact(&mut self, stage: &str, share: f64, note: String) {
        self.report(stage, Some(share), Some(0.0), note);
    }

    fn skip(&mut self, stage: &str, note: String) {
        self.report(stage, None, None, note);
    }

    fn report(&mut self, stage: &str, error: Option<f64>, tolerance: Option<f64>, note: String) {
        let passed = error.zip(tolerance).is_none_or(|(error, tolerance)| error <= tolerance);
        self.stages.push(StageReport { stage: stage.to_owned(), error, tolerance, passed, note });
    }
}

fn is_visual(config: &Config, id: u32) -> bool {
    id == config.image_token_id || id == config.video_token_id
}

/// Share of places that differ; a missing place differs.
fn differing<T: PartialEq>(own: &[T], wanted: &[T]) -> f64 {
    let length = own.len().max(wanted.len());
    let same = own.iter().zip(wanted).filter(|(a, b)| a == b).count();
    if length == 0 { 0.0 } else { (length - same) as f64 / length as f64 }
}

/// `max|a-b| / max|b|`; anything that is not a number counts as infinitely wrong.
fn relative_error(own: &[f32], wanted: &[f32]) -> f64 {
    let mut largest = 0.0_f64;
    let mut difference = 0.0_f64;
    for (&a, &b) in own.iter().zip(wanted) {
        let distance = f64::from(a) - f64::from(b);
        if !distance.is_finite() {
            return f64::INFINITY;
        }
        difference = difference.max(distance.abs());
        largest = largest.max(f64::from(b).abs());
    }
    if difference == 0.0 { 0.0 } else { difference / largest }
}
