//! Speculative decoding against plain decoding of the same prompts: agreement, guesses that came true, wall-clock.
//!
//! Two pairs: the demonstration's, and random weights whose draft is the first quarter of its target's layers, so that they
//! agree at all. Every run's tokens are compared with the plain ones; a difference is an error, not a figure. The time is
//! that of writing, with what guessing needs for each turn: the draft's prefill, and choosing what to prune. The frames'
//! embeddings are there on both sides, as for a second question about a video.

use std::path::{Path, PathBuf};

use serde::Serialize;
use spectemp_engine::{Generation, Message, Part, Request, RgbImage, Role, Vlm};
use tokio::runtime::Runtime;

use super::served::{failed, request, runtime};
use super::sizes::{self, Size};
use crate::ModelError;
use crate::device::LoadOptions;
use crate::files::ModelFiles;
use crate::speculate::{ProposerChoice, Speculation, SpeculationFigures};
use crate::vlm::QwenVlm;

/// What to measure.
#[derive(Clone, Debug)]
pub struct SpeculateOptions {
    /// Visual tokens of the prompt.
    pub visual_tokens: Vec<usize>,
    /// Shares of them that the draft and the sparse side do without.
    pub prune: Vec<f64>,
    /// Guesses at each level.
    pub widths: Vec<usize>,
    /// Most tokens to write.
    pub tokens: u32,
    /// Timed runs of each row.
    pub repeat: u32,
    /// Threads; 0 means one per core.
    pub threads: usize,
    /// Folder that keeps the checkpoints.
    pub cache: PathBuf,
    /// The demonstration's target; its tokenizer, chat template and prompts are also those of the random pair.
    pub target: ModelFiles,
    /// The demonstration's draft.
    pub draft: ModelFiles,
}

/// One proposer on one prompt.
#[derive(Clone, Debug, Serialize)]
pub struct SpeculateRow {
    /// `demonstration` or `shared layers`.
    pub pair: &'static str,
    /// Visual tokens of the prompt.
    pub visual_tokens: u64,
    /// All tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub tokens: usize,
    /// Who guessed.
    pub proposer: String,
    /// Share of the visual tokens that it did without, where it sees any.
    pub prune: Option<f64>,
    /// The shortest time of writing, in milliseconds.
    pub ms: f64,
    /// The same without guesses.
    pub plain_ms: f64,
    /// Plain over speculated: 2 is twice as fast.
    pub ratio: f64,
    /// How often the model decided what was guessed.
    pub agreement: Option<f64>,
    /// Guesses that came true per call.
    pub accepted_per_call: Option<f64>,
    /// Sums of the timed runs.
    pub figures: SpeculationFigures,
}

/// All rows of a run.
#[derive(Clone, Debug, Serialize)]
pub struct SpeculateReport {
    /// Threads.
    pub threads: usize,
    /// Guesses at each level.
    pub widths: Vec<usize>,
    /// The figures.
    pub rows: Vec<SpeculateRow>,
}

/// A target, its draft, and the side of the frames that its prompts show.
struct Pair {
    name: &'static str,
    target: ModelFiles,
    draft: ModelFiles,
    side: u32,
}

/// Runs all rows; `log` gets a line for each.
///
/// # Errors
/// A checkpoint that cannot be made or loaded; tokens that differ from plain decoding's.
pub fn run_speculation(
    options: &SpeculateOptions,
    log: &mut dyn FnMut(&str),
) -> Result<SpeculateReport, ModelError> {
    let (target, draft) = sizes::prepare_shared(Size::M60, &options.cache, &options.target)?;
    let shared = |folder: &Path| ModelFiles::folder(folder);
    let pairs = [
        Pair {
            name: "demonstration",
            target: options.target.clone(),
            draft: options.draft.clone(),
            side: 56,
        },
        Pair { name: "shared layers", target: shared(&target), draft: shared(&draft), side: 448 },
    ];
    let runtime = runtime()?;
    let mut rows = Vec::new();
    for pair in &pairs {
        for &visual in &options.visual_tokens {
            let mut bench = Bench::start(options, pair, visual, &runtime)?;
            for row in bench.rows(options)? {
                log(&row.summary());
                rows.push(row);
            }
        }
    }
    Ok(SpeculateReport { threads: options.threads, widths: options.widths.clone(), rows })
}

impl SpeculateRow {
    fn summary(&self) -> String {
        let Self { pair, visual_tokens, proposer, ms, ratio, .. } = self;
        let prune = self.prune.map_or_else(String::new, |prune| format!(" pruned {prune}"));
        let agreement = self.agreement.unwrap_or(0.0);
        format!(
            "{pair}, {visual_tokens} visual tokens: {proposer}{prune}: {ms:.1} ms, ratio {ratio:.2}, agreement {agreement:.2}"
        )
    }
}

/// One prompt on one pair, and what plain decoding makes of it.
struct Bench<'a> {
    pair: &'a Pair,
    plain: Generation,
    plain_ms: f64,
    model: QwenVlm,
    load: LoadOptions,
    request: Request,
    runtime: &'a Runtime,
}

impl<'a> Bench<'a> {
    fn start(
        options: &SpeculateOptions,
        pair: &'a Pair,
        visual: usize,
        runtime: &'a Runtime,
    ) -> Result<Self, ModelError> {
        let threads = (options.threads > 0).then_some(options.threads);
        let load = LoadOptions { threads, prefix_cache_bytes: 2 << 30, ..LoadOptions::default() };
        let model = QwenVlm::load(&pair.target, &load)?;
        let tokens = (pair.side / 28).pow(2) as usize;
        let request = request(frames(visual.div_ceil(tokens), pair.side), options.tokens as usize);
        // The first run fills the caches: prompt and vision are the same for all.
        let warm = runtime.block_on(model.generate(request.clone())).map_err(failed)?;
        let mut bench = Self { pair, plain: warm, plain_ms: 0.0, model, load, request, runtime };
        bench.plain_ms = bench.best(options.repeat)?;
        Ok(bench)
    }

    /// The shortest time of writing.
    fn best(&self, repeat: u32) -> Result<f64, ModelError> {
        let mut best = f64::INFINITY;
        for _ in 0..repeat.max(1) {
            let run = self.runtime.block_on(self.model.generate(self.request.clone())).map_err(failed)?;
            if run.tokens != self.plain.tokens {
                let reason = "speculation changed the text: this is a bug".to_owned();
                return Err(ModelError::Source { model: self.pair.name.to_owned(), reason });
            }
            best = best.min(run.times.generate_ms);
        }
        Ok(best)
    }

    fn rows(&mut self, options: &SpeculateOptions) -> Result<Vec<SpeculateRow>, ModelError> {
        let mut rows = Vec::new();
        for proposer in ProposerChoice::ALL {
            let sees = proposer != ProposerChoice::Lookup;
            let rates: &[f64] = if sees { &options.prune } else { &[0.0] };
            for &prune in rates {
                let speculation = Speculation {
                    prune,
                    widths: options.widths.clone(),
                    most_sequences: Some(1),
                    ..Speculation::by(proposer)
                };
                // The same weights and caches: a model is loaded once on a thread.
                self.model.set_speculation(speculation, Some(&self.pair.draft), &self.load)?;
                // Encodes the frames for a draft that has not seen them.
                self.best(1)?;
                let before = self.model.speculation_figures();
                let ms = self.best(options.repeat)?;
                rows.push(self.row(
                    proposer,
                    sees.then_some(prune),
                    ms,
                    self.model.speculation_figures() - before,
                ));
            }
        }
        Ok(rows)
    }

    fn row(
        &self,
        proposer: ProposerChoice,
        prune: Option<f64>,
        ms: f64,
        figures: SpeculationFigures,
    ) -> SpeculateRow {
        let counts = self.plain.counts;
        SpeculateRow {
            pair: self.pair.name,
            visual_tokens: counts.visual,
            prompt_tokens: counts.visual + counts.text,
            tokens: self.plain.tokens.len(),
            proposer: proposer.to_string(),
            prune,
            ms,
            plain_ms: self.plain_ms,
            ratio: self.plain_ms / ms,
            agreement: figures.agreement(),
            accepted_per_call: figures.accepted_per_call(),
            figures,
        }
    }
}

/// A question about frames that differ from each other.
fn frames(count: usize, side: u32) -> Vec<Message> {
    let mut parts = vec![Part::Text("0 ".to_owned())];
    for frame in 0..count as u32 {
        let value = |at: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(frame * 977) >> 24) as u8;
        let data: Vec<u8> = (0..side * side * 3).map(value).collect();
        parts.push(Part::Text(frame.to_string()));
        parts.push(Part::Image(RgbImage { width: side, height: side, data: data.into() }));
    }
    parts.push(Part::Text(format!("{count}\nWhat digit flashes in the red scene?")));
    vec![Message { role: Role::User, parts }]
}
