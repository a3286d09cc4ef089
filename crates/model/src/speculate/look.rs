//! How much the end of a prompt looks at each of its tokens: the attention of its last text tokens, averaged over them and
//! over heads, layer by layer. Taken by running those tokens once more in a fork of the cache.

use super::Known;
use crate::ModelError;
use crate::text::{Rows, Span};

/// Text tokens at the prompt's end whose attention counts.
const READERS: usize = 16;

/// For each layer the attention that each token of the prompt gets.
pub(super) fn attention(known: &Known<'_>) -> Result<Vec<Vec<f32>>, ModelError> {
    let tokens = known.prompt.ids.len();
    let after_images = known.prompt.visual().last().map_or(0, |last| last + 1);
    let first = after_images.max(tokens.saturating_sub(READERS));
    if first >= tokens {
        return Err(ModelError::Prompt("no text follows its last image".to_owned()));
    }
    let mut cache = known.cache.fork(first);
    let x = known.text.embed(&known.prompt.ids[first..])?;
    let rotary = known.text.rotary(&known.prompt.positions[first..])?;
    let span = Span { cache: &mut cache, tokens: tokens - first, rows: Rows::None, tree: None };
    known.text.forward_watched(&x, &rotary, span)
}
