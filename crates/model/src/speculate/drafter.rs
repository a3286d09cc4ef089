//! A model's cheap side: it runs on in a cache of its own, a pruned one, and grows guesses there. What the target then
//! decides stays in that cache as far as it was guessed; the rest is run when the next guesses are grown.

use std::time::Instant;

use candle_core::{DType, Tensor};

use super::guess::Guess;
use super::{Extent, Known, Piece};
use crate::ModelError;
use crate::kv::Cache;
use crate::rope::Position;
use crate::sample::log_sum;
use crate::text::{Rows, Span, TextModel};
use crate::writer::not_finite;

/// What a proposer that runs a model has for one sequence.
#[derive(Debug)]
pub(crate) struct Side {
    /// Guesses at each level.
    widths: Vec<usize>,
    /// Share of the visual tokens that it does without.
    pub(crate) prune: f64,
    /// Made with the first guesses.
    drafter: Option<Drafter>,
}

impl Side {
    pub(crate) fn new(widths: Vec<usize>, prune: f64) -> Self {
        Self { widths, prune, drafter: None }
    }

    /// Goes on with the making of the drafter, where there is none yet. `make` does a piece, and gives its share of the whole
    /// and, after the last one, the cache that holds what the drafter is to know of the prompt.
    pub(crate) fn start(
        &mut self,
        make: impl FnOnce(f64) -> Result<(f64, Option<Cache>), ModelError>,
    ) -> Result<Option<Piece>, ModelError> {
        if self.drafter.is_some() {
            return Ok(None);
        }
        let start = Instant::now();
        let (share, cache) = make(self.prune)?;
        self.drafter = cache.map(Drafter::new);
        Ok(Some(Piece { took: start.elapsed(), share }))
    }

    /// Guesses with `text`, once the drafter is made.
    pub(crate) fn guess(&mut self, known: &Known<'_>, text: &TextModel) -> Result<Guess, ModelError> {
        let Some(drafter) = &mut self.drafter else { return Ok(Guess::default()) };
        let decided = Decided { ids: known.decided, position: known.position };
        let levels = self.widths.len().min(known.room);
        drafter.grow(text, decided, &self.widths[..levels])
    }

    /// Tokens that its cache may hold.
    pub(crate) fn most_tokens(&self, extent: Extent) -> usize {
        self.prompt_tokens(extent.text, extent.visual) + extent.after
    }

    /// Those of a prompt with so many tokens.
    pub(crate) fn prompt_tokens(&self, text: usize, visual: usize) -> usize {
        let kept = (visual as f64 * (1.0 - self.prune)).ceil() as usize;
        text + kept.max(visual.min(1))
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.drafter.as_ref().map_or(0, |drafter| drafter.cache.bytes())
    }
}

/// One sequence's drafting cache.
#[derive(Debug)]
pub(crate) struct Drafter {
    cache: Cache,
    /// Tokens of the prompt that it holds.
    prompt: usize,
    /// Decided tokens that it holds behind them.
    held: usize,
    /// Guesses that it holds behind those.
    grown: Guess,
}

/// What guesses follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided<'a> {
    /// All tokens after the prompt, at least one.
    pub(crate) ids: &'a [u32],
    /// Position of the first of them.
    pub(crate) position: u32,
}

impl Drafter {
    /// Goes on from a cache that holds what the draft is to know of the prompt.
    pub(crate) fn new(cache: Cache) -> Self {
        Self { prompt: cache.len(), cache, held: 0, grown: Guess::default() }
    }

    /// Grows guesses: `widths[level]` of them at each level, the likeliest by the sums of their log-probabilities.
    ///
    /// # Errors
    /// Where the device fails, or logits are no numbers.
    pub(crate) fn grow(
        &mut self,
        text: &TextModel,
        decided: Decided<'_>,
        widths: &[usize],
    ) -> Result<Guess, ModelError> {
        self.settle(decided.ids)?;
        let rows = self.catch_up(text, decided)?;
        let mut guess = Guess::default();
        // The newest level: each guess with the logarithm of its path's probability.
        let mut level = best(&[(None, 0.0, rows.as_slice())], widths.first().copied().unwrap_or(0))?;
        let mut places = push(&mut guess, &level);
        for &width in widths.iter().skip(1) {
            let rows = self.run_guesses(text, decided, &guess, &places)?;
            let parents: Vec<_> = places
                .iter()
                .zip(&level)
                .zip(rows.chunks_exact(rows.len() / places.len().max(1)))
                .map(|((place, grown), row)| (Some(*place), grown.score, row))
                .collect();
            level = best(&parents, width)?;
            self.grown = guess.clone();
            places = push(&mut guess, &level);
        }
        Ok(guess)
    }

    /// Keeps what was guessed and came true.
    fn settle(&mut self, ids: &[u32]) -> Result<(), ModelError> {
        let (mut path, mut parent) = (Vec::new(), None);
        for &id in &ids[self.held..] {
            let Some(place) = self.grown.child(parent, id) else { break };
            path.push(place);
            parent = Some(place);
        }
        self.cache.keep(self.prompt + self.held, &path)?;
        self.held += path.len();
        self.grown = Guess::default();
        Ok(())
    }

    /// Runs the decided tokens that are missing; gives the logits after the last one.
    fn catch_up(&mut self, text: &TextModel, decided: Decided<'_>) -> Result<Vec<f32>, ModelError> {
        // The last one is always run, for its logits.
        self.held = self.held.min(decided.ids.len() - 1);
        self.cache.truncate(self.prompt + self.held);
        let missing = &decided.ids[self.held..];
        let positions = (decided.position + self.held as u32..).take(missing.len()).map(|at| [at; 3]);
        let rows = run(text, &mut self.cache, missing, positions.collect(), (Rows::Last, None))?;
        self.held = decided.ids.len();
        Ok(rows)
    }

    /// Runs the newest guesses, `places`; gives the logits after each. A chain goes on from what ran before, a tree runs
    /// again from its root: what ran side by side cannot be told apart in the cache.
    fn run_guesses(
        &mut self,
        text: &TextModel,
        decided: Decided<'_>,
        guess: &Guess,
        places: &[usize],
    ) -> Result<Vec<f32>, ModelError> {
        let first = decided.position + decided.ids.len() as u32;
        let at = |place: usize| [first + guess.depth(place) as u32; 3];
        if guess.is_chain() {
            let ids: Vec<u32> = places.iter().map(|&place| guess.ids()[place]).collect();
            let positions = places.iter().map(|&place| at(place)).collect();
            return run(text, &mut self.cache, &ids, positions, (Rows::Last, None));
        }
        self.cache.truncate(self.prompt + decided.ids.len());
        let positions = (0..guess.ids().len()).map(at).collect();
        let rows = run(text, &mut self.cache, guess.ids(), positions, (Rows::All, Some(guess.parents())))?;
        let vocab = rows.len() / guess.ids().len();
        Ok(places.iter().flat_map(|&place| &rows[place * vocab..][..vocab]).copied().collect())
    }
}

/// A guess to be.
#[derive(Clone, Copy, Debug)]
struct Grown {
    id: u32,
    parent: Option<usize>,
    /// Logarithm of the probability of its path.
    score: f64,
}

/// The likeliest `width` that may follow any of these parents, each with its score and the logits after it.
fn best(parents: &[(Option<usize>, f64, &[f32])], width: usize) -> Result<Vec<Grown>, ModelError> {
    let mut all = Vec::with_capacity(parents.len() * width);
    for &(parent, score, row) in parents {
        let sum = log_sum(row);
        if !sum.is_finite() {
            return Err(not_finite());
        }
        let grown = |id: u32| Grown { id, parent, score: score + f64::from(row[id as usize]) - sum };
        all.extend(largest(row, width).into_iter().map(grown));
    }
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all.truncate(width);
    // Parents before children, siblings in the order of their likelihood.
    Ok(all)
}

/// Ids of the `count` largest logits, the largest first; of equals the lower id, as greedy decoding has it.
fn largest(row: &[f32], count: usize) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::with_capacity(count + 1);
    for (id, &logit) in (0_u32..).zip(row) {
        let full = found.len() == count;
        if full && found.last().is_none_or(|&last| logit <= row[last as usize]) {
            continue;
        }
        let at = found.partition_point(|&other| row[other as usize] >= logit);
        found.insert(at, id);
        found.truncate(count);
    }
    found
}

fn push(guess: &mut Guess, level: &[Grown]) -> Vec<usize> {
    level.iter().map(|grown| guess.push(grown.id, grown.parent)).collect()
}

/// Runs text tokens in a cache; gives the wanted rows of logits, one after the other.
fn run(
    text: &TextModel,
    cache: &mut Cache,
    ids: &[u32],
    positions: Vec<Position>,
    (rows, tree): (Rows, Option<&[Option<usize>]>),
) -> Result<Vec<f32>, ModelError> {
    let x = text.embed(ids)?;
    run_embedded(text, &x, &positions, Span { cache, tokens: ids.len(), rows, tree })
}

/// The same for tokens that are embedded already.
pub(crate) fn run_embedded(
    text: &TextModel,
    x: &Tensor,
    positions: &[Position],
    span: Span<'_>,
) -> Result<Vec<f32>, ModelError> {
    let hidden = text.forward_spans(x, &text.rotary(positions)?, &mut [span])?;
    match hidden {
        Some(hidden) => Ok(text.logits(&hidden)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?),
        None => Ok(Vec::new()),
    }
}
