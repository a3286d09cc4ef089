//! Images on their way through the vision tower: in pieces, so that many of them hold nobody up.

use candle_core::Tensor;

use crate::ModelError;
use crate::network::Network;
use crate::processor::{Patches, Processor};
use crate::prompt::PromptImage;

/// Patches that go through the vision tower in one step; images are grouped up to it, a larger one goes alone.
const STEP_PATCHES: usize = 1024;

/// Of the images with these numbers, rising, those that go first.
pub(crate) fn first_group<'a>(images: &[PromptImage], numbers: &'a [usize]) -> &'a [usize] {
    let mut patches = 0;
    let fits = numbers.iter().take_while(|&&number| {
        patches += images[number].grid.patches();
        patches <= STEP_PATCHES
    });
    &numbers[..fits.count().max(1).min(numbers.len())]
}

/// Embeddings of all tokens of the images with these numbers, `[tokens, hidden]`.
pub(crate) fn encode(
    network: &Network,
    processor: &Processor,
    images: &[PromptImage],
    numbers: &[usize],
) -> Result<Tensor, ModelError> {
    let patches = numbers.iter().map(|&number| processor.patches(&images[number].image));
    let patches = patches.collect::<Result<Vec<_>, _>>()?;
    let grids: Vec<_> = patches.iter().map(|patches| patches.grid).collect();
    let stacked = Patches::stack(&patches, network.text.device())?;
    network.vision.forward(&stacked, &grids)
}
