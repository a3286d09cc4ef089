//! Speed on the CPU: vision, prefill and decode with random weights of given sizes, and HF transformers with the same
//! weights, inputs and threads, in turns in one run.
//!
//! A size's checkpoint is written once into a cache folder; both sides load it from there. Each round times one run of
//! ours and one of the peer, so that what else the machine does hits both.

mod ours;
mod peer;
mod sizes;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use self::ours::Ours;
use self::peer::Peer;
pub use self::sizes::Size;
use crate::{DTypeChoice, ModelError};

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Sizes of the model.
    pub sizes: Vec<Size>,
    /// Threads of both sides; 0 means one per core.
    pub threads: usize,
    /// Timed rounds of each work, after one that warms up.
    pub repeat: u32,
    /// In what type our weights are held; the peer's are f32.
    pub dtype: DTypeChoice,
    /// Folder that keeps the checkpoints.
    pub cache: PathBuf,
    /// A Python with torch and transformers; without it only ours is measured.
    pub python: Option<PathBuf>,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Embeddings of square frames, all in one call.
    Vision {
        /// Frames.
        frames: usize,
        /// Their side in pixels.
        side: usize,
    },
    /// The logits after a prompt of text.
    Prefill {
        /// Its tokens.
        tokens: usize,
    },
    /// Greedy tokens one by one.
    Decode {
        /// Tokens generated.
        tokens: usize,
        /// Tokens before them.
        context: usize,
    },
}

impl Work {
    /// What every run measures.
    pub const ALL: [Self; 3] = [
        Self::Vision { frames: 10, side: 224 },
        Self::Prefill { tokens: 512 },
        Self::Decode { tokens: 64, context: 512 },
    ];

    /// What a time is divided by to be shown: the tokens of a decode, else 1.
    pub fn units(&self) -> usize {
        match self {
            Self::Decode { tokens, .. } => *tokens,
            _ => 1,
        }
    }

    /// How fast ours must be for the project's goal, as a multiple of the peer's speed.
    pub fn reach(&self) -> f64 {
        match self {
            Self::Decode { .. } => 1.2,
            _ => 0.9,
        }
    }
}

/// Times of one side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    /// The shortest, in milliseconds, per token where tokens are generated.
    pub best_ms: f64,
    /// The middle one.
    pub median_ms: f64,
    /// All, in order.
    pub all_ms: Vec<f64>,
    /// The least time on all processors together: what remains comparable while other programs want the processors.
    pub best_cpu_ms: f64,
}

impl Times {
    fn new(runs: &[Run], units: usize) -> Self {
        let ms = |seconds: f64| seconds * 1e3 / units as f64;
        let all_ms: Vec<f64> = runs.iter().map(|run| ms(run.seconds)).collect();
        let mut sorted = all_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let best_cpu_ms = runs.iter().map(|run| ms(run.cpu_seconds)).fold(f64::NAN, f64::min);
        Self { best_ms: at(0), median_ms: at(sorted.len() / 2), all_ms, best_cpu_ms }
    }
}

/// One work at one size.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRow {
    /// Which model.
    pub size: Size,
    /// What was timed.
    #[serde(flatten)]
    pub work: Work,
    /// Our times.
    pub ours: Times,
    /// The peer's, where there is one.
    pub peer: Option<Comparison>,
}

impl BenchRow {
    /// The figures in a line.
    fn summary(&self) -> String {
        let Self { size, work, ours, peer } = self;
        let ours = format!("{size}: {work:?}: {:.2} ms (median {:.2})", ours.best_ms, ours.median_ms);
        match peer {
            None => ours,
            Some(Comparison { times, ratio_best, ratio_median, ratio_cpu, .. }) => format!(
                "{ours}, peer {:.2} ms ({:.2}), ratio {ratio_best:.2} ({ratio_median:.2}, of processor time {ratio_cpu:.2})",
                times.best_ms, times.median_ms
            ),
        }
    }
}

/// A peer's times and how its results compare.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Its times.
    pub times: Times,
    /// Its best time over ours: 2 is twice as fast as the peer.
    pub ratio_best: f64,
    /// The same of the medians.
    pub ratio_median: f64,
    /// The same of the processor times. A side that spins while it waits looks slower than it is.
    pub ratio_cpu: f64,
    /// What the ratio should reach.
    pub reach: f64,
    /// max|a−b| / max|b| of what both computed.
    pub difference: f64,
    /// Equal generated tokens from the first on, where tokens are generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equal_tokens: Option<usize>,
}

/// All figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Threads of both sides.
    pub threads: usize,
    /// In what type our weights are held.
    pub dtype: String,
    /// Vector instructions that the kernels use here.
    pub instructions: String,
    /// The peer's versions, where there is one.
    pub peer: Option<String>,
    /// The models' shapes.
    pub models: Vec<sizes::Shape>,
    /// The figures.
    pub rows: Vec<BenchRow>,
}

/// What one run gives besides its time.
#[derive(Clone, Debug, Default, Deserialize)]
struct Run {
    seconds: f64,
    /// Time on all processors together.
    cpu_seconds: f64,
    /// Sampled results, to compare.
    values: Vec<f32>,
    /// Generated tokens.
    #[serde(default)]
    tokens: Vec<u32>,
}

/// Measures; `progress` is told what is being done.
///
/// # Errors
/// Where a checkpoint cannot be written or read, or the peer fails.
pub fn run(options: &BenchOptions, progress: &mut dyn FnMut(&str)) -> Result<BenchReport, ModelError> {
    let mut report = BenchReport {
        threads: crate::kernels::Threads::new(options.threads).count(),
        dtype: options.dtype.to_string(),
        instructions: crate::kernels::instructions().to_owned(),
        peer: None,
        models: Vec::new(),
        rows: Vec::new(),
    };
    for &size in &options.sizes {
        let folder = options.cache.join(size.folder());
        progress(&format!("{size}: checkpoint in {}", folder.display()));
        sizes::prepare(size, &folder)?;
        let mut ours = Ours::load(&folder, report.threads, options.dtype)?;
        report.models.push(size.shape());
        let mut peer = match &options.python {
            Some(python) => Some(Peer::start(python, &folder, report.threads)?),
            None => None,
        };
        if let Some(peer) = &peer {
            report.peer = Some(peer.versions.clone());
        }
        for work in Work::ALL {
            let row = row(size, work, options.repeat, (&mut ours, peer.as_mut()))?;
            progress(&row.summary());
            report.rows.push(row);
        }
    }
    Ok(report)
}

fn row(
    size: Size,
    work: Work,
    repeat: u32,
    (ours, mut peer): (&mut Ours, Option<&mut Peer>),
) -> Result<BenchRow, ModelError> {
    let (mut our_runs, mut peer_runs) = (Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=repeat {
        let our_run = ours.run(&work)?;
        if let Some(peer) = &mut peer {
            let peer_run = peer.run(&work)?;
            if round > 0 {
                peer_runs.push(peer_run);
            }
        }
        if round > 0 {
            our_runs.push(our_run);
        }
    }
    let ours = Times::new(&our_runs, work.units());
    let peer = our_runs.last().zip(peer_runs.last()).map(|(our_run, peer_run)| {
        let times = Times::new(&peer_runs, work.units());
        Comparison {
            ratio_best: times.best_ms / ours.best_ms,
            ratio_median: times.median_ms / ours.median_ms,
            ratio_cpu: times.best_cpu_ms / ours.best_cpu_ms,
            reach: work.reach(),
            difference: difference(&our_run.values, &peer_run.values),
            equal_tokens: matches!(work, Work::Decode { .. })
                .then(|| equal(&our_run.tokens, &peer_run.tokens)),
            times,
        }
    });
    Ok(BenchRow { size, work, ours, peer })
}

/// max|a−b| / max|b|; infinite where the lengths differ.
fn difference(ours: &[f32], theirs: &[f32]) -> f64 {
    if ours.len() != theirs.len() {
        return f64::INFINITY;
    }
    let largest = |values: &mut dyn Iterator<Item = f32>| {
        f64::from(values.fold(0.0_f32, |max, value| max.max(value.abs())))
    };
    largest(&mut ours.iter().zip(theirs).map(|(a, b)| a - b)) / largest(&mut theirs.iter().copied())
}

/// Tokens before the first that differs.
fn equal(ours: &[u32], theirs: &[u32]) -> usize {
    ours.iter().zip(theirs).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_value() {
        assert_eq!(difference(&[1.0, -4.0], &[1.0, -4.0]), 0.0);
        assert_eq!(difference(&[1.5, -4.0], &[1.0, -4.0]), 0.125);
        assert_eq!(difference(&[1.0], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(equal(&[1, 2, 3, 4], &[1, 2, 7, 4]), 2);
    }

    #[test]
    fn times_are_per_token() {
        let run = |seconds, cpu_seconds| Run { seconds, cpu_seconds, ..Run::default() };
        let times = Times::new(&[run(0.5, 0.6), run(0.25, 0.7), run(1.0, 0.8)], 10);
        assert_eq!((times.best_ms, times.median_ms, times.best_cpu_ms), (25.0, 50.0, 60.0));
        assert_eq!(times.all_ms, [50.0, 25.0, 100.0]);
    }
}
