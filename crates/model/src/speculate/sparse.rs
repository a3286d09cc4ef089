//! Sparse self-drafting (Sparse-to-Dense): the model itself runs on over the visual tokens that each of its layers looks at
//! most, chosen once after the prompt. The same weights, less to attend to.

use super::drafter::Side;
use super::prune::largest;
use super::{Extent, Guess, Known, Piece, Proposer, look};
use crate::ModelError;
use crate::kv::Cache;

/// The model's sparse side for one sequence.
#[derive(Debug)]
pub(crate) struct Sparse {
    pub(crate) side: Side,
}

impl Proposer for Sparse {
    fn start(&mut self, known: &Known<'_>) -> Result<Option<Piece>, ModelError> {
        self.side.start(|prune| Ok((1.0, Some(sparse(known, prune)?))))
    }

    fn propose(&mut self, known: &Known<'_>) -> Result<Guess, ModelError> {
        self.side.guess(known, known.text)
    }

    fn most_bytes(&self, extent: Extent) -> usize {
        self.side.most_tokens(extent).div_ceil(Cache::BLOCK) * extent.block_bytes
    }

    fn held_bytes(&self) -> usize {
        self.side.held_bytes()
    }
}

/// The model's own cache of the prompt without a share of the visual tokens, each layer's own choice of them.
fn sparse(known: &Known<'_>, prune: f64) -> Result<Cache, ModelError> {
    let tokens = known.prompt.ids.len();
    let visual = known.prompt.visual();
    let keep = visual.len() - (visual.len() as f64 * prune).round() as usize;
    let mut cache = known.cache.fork(tokens);
    if keep < visual.len() {
        for (number, mass) in look::attention(known)?.iter().enumerate() {
            let mass: Vec<f32> = visual.iter().map(|&at| mass[at]).collect();
            let mut kept = vec![true; tokens];
            visual.iter().for_each(|&at| kept[at] = false);
            largest(&mass, keep).into_iter().for_each(|place| kept[visual[place]] = true);
            let places: Vec<usize> = (0..tokens).filter(|&at| kept[at]).collect();
            cache.layer(number).keep(0, &places)?;
        }
    }
    Ok(cache)
}
