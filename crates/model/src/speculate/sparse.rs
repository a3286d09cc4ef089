//! Sparse self-drafting (Sparse-to-Dense): the model itself runs on over the visual tokens that each of its layers looks at
//! most, chosen once after the prompt. The same weights, less to attend to.

use super::drafter::{Decided, Drafter};
use super::prune::largest;
use super::{Guess, Known, Proposer, look};
use crate::ModelError;

/// The model's sparse side for one sequence.
#[derive(Debug)]
pub(crate) struct Sparse {
    pub(crate) widths: Vec<usize>,
    pub(crate) prune: f64,
    /// Made with the first guesses.
    pub(crate) drafter: Option<Drafter>,
}

impl Sparse {
    fn start(&self, known: &Known<'_>) -> Result<Drafter, ModelError> {
        let tokens = known.prompt.ids.len();
        let visual = known.prompt.visual();
        let keep = visual.len() - (visual.len() as f64 * self.prune).round() as usize;
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
        Ok(Drafter::new(cache))
    }
}

impl Proposer for Sparse {
    fn propose(&mut self, known: &Known<'_>) -> Result<Guess, ModelError> {
        let mut drafter = match self.drafter.take() {
            Some(drafter) => drafter,
            None => self.start(known)?,
        };
        let decided = Decided { ids: known.decided, position: known.position };
        let levels = self.widths.len().min(known.room);
        let guess = drafter.grow(known.text, decided, &self.widths[..levels])?;
        self.drafter = Some(drafter);
        Ok(guess)
    }
}
