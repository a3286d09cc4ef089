//! Times of both sides and how they compare.

use serde::{Deserialize, Serialize};

use super::Work;
use super::sizes::{Shape, Size};

/// Times of one side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    /// The shortest, in milliseconds, per token where tokens are generated, per question where questions are answered.
    pub best_ms: f64,
    /// The middle one.
    pub median_ms: f64,
    /// All, in order.
    pub all_ms: Vec<f64>,
    /// Tokens or questions per second, from the shortest.
    pub per_second: f64,
    /// The least time on all processors together: what remains comparable while other programs want the processors.
    pub best_cpu_ms: f64,
}

impl Times {
    pub(super) fn new(runs: &[Run], units: usize) -> Self {
        let ms = |seconds: f64| seconds * 1e3 / units as f64;
        let all_ms: Vec<f64> = runs.iter().map(|run| ms(run.seconds)).collect();
        let mut sorted = all_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let best_cpu_ms = runs.iter().map(|run| ms(run.cpu_seconds)).fold(f64::NAN, f64::min);
        Self { best_ms: at(0), per_second: 1e3 / at(0), median_ms: at(sorted.len() / 2), all_ms, best_cpu_ms }
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
    /// Those of llama.cpp, where it does this work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llama: Option<Other>,
}

/// Times of a peer whose results are not compared.
#[derive(Clone, Debug, Serialize)]
pub struct Other {
    /// Its times.
    pub times: Times,
    /// Its best time over ours: 2 is twice as fast as the peer.
    pub ratio_best: f64,
    /// The same of the medians.
    pub ratio_median: f64,
}

impl BenchRow {
    /// The figures in a line.
    pub(super) fn summary(&self) -> String {
        let Self { size, work, ours, peer, llama } = self;
        let llama = llama.as_ref().map_or_else(String::new, |llama| {
            format!(", llama.cpp {:.2} ms, ratio {:.2}", llama.times.best_ms, llama.ratio_best)
        });
        let ours = format!("{size}: {work:?}: {:.2} ms (median {:.2}){llama}", ours.best_ms, ours.median_ms);
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
    /// The same of llama.cpp.
    pub llama: Option<String>,
    /// The models' shapes.
    pub models: Vec<Shape>,
    /// The figures.
    pub rows: Vec<BenchRow>,
}

/// What one run gives besides its time.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Run {
    pub(super) seconds: f64,
    /// Time on all processors together.
    pub(super) cpu_seconds: f64,
    /// Sampled results, to compare.
    pub(super) values: Vec<f32>,
    /// Generated tokens.
    #[serde(default)]
    pub(super) tokens: Vec<u32>,
    /// Ids of the prompts, for the peer.
    #[serde(default)]
    pub(super) prompts: Vec<Vec<u32>>,
}

/// The timed runs of all sides.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pub(super) ours: Vec<Run>,
    pub(super) peer: Vec<Run>,
    pub(super) llama: Vec<Run>,
}

impl BenchRow {
    pub(super) fn new(size: Size, work: Work, runs: &Runs) -> Self {
        let own = Times::new(&runs.ours, work.units());
        let peer = runs.ours.last().zip(runs.peer.last()).map(|(our_run, peer_run)| {
            let times = Times::new(&runs.peer, work.units());
            Comparison {
                ratio_best: times.best_ms / own.best_ms,
                ratio_median: times.median_ms / own.median_ms,
                ratio_cpu: times.best_cpu_ms / own.best_cpu_ms,
                reach: work.reach(),
                difference: difference(&our_run.values, &peer_run.values),
                equal_tokens: work.generates().then(|| equal(&our_run.tokens, &peer_run.tokens)),
                times,
            }
        });
        let llama = (!runs.llama.is_empty()).then(|| {
            let times = Times::new(&runs.llama, work.units());
            Other {
                ratio_best: times.best_ms / own.best_ms,
                ratio_median: times.median_ms / own.median_ms,
                times,
            }
        });
        Self { size, work, ours: own, peer, llama }
    }
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
