//! From messages to token ids: the chat template's text is tokenised as a whole between generated parts, whose ids are
//! taken as they are; each image pad is repeated for the image's tokens.

use spectemp_engine::{Message, Part, RgbImage};

use crate::ModelError;
use crate::chat::ChatTemplate;
use crate::processor::Processor;
use crate::rope::{Grid, Position, PositionSettings, VisualSpan, positions};
use crate::tokenizer::Tokenizer;

/// A content hash of an image as the model sees it.
pub(crate) type ImageHash = [u8; 32];

/// A prompt, ready for the model.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) ids: Vec<u32>,
    pub(crate) images: Vec<PromptImage>,
    pub(crate) positions: Vec<Position>,
    /// What each token is, by content: equal keys up to a place mean equal KV up to it.
    pub(crate) keys: Vec<u64>,
}

/// One image of a prompt.
#[derive(Debug)]
pub(crate) struct PromptImage {
    pub(crate) image: RgbImage,
    pub(crate) grid: Grid,
    pub(crate) hash: ImageHash,
    /// Its first token.
    pub(crate) at: usize,
    /// Its tokens.
    pub(crate) tokens: usize,
}

/// What prompts are made with.
#[derive(Debug)]
pub(crate) struct PromptMaker {
    pub(crate) template: ChatTemplate,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) processor: Processor,
    pub(crate) image_token_id: u32,
    pub(crate) settings: PositionSettings,
    pub(crate) patch: usize,
}

impl PromptMaker {
    /// Renders, tokenises and expands.
    pub(crate) fn make(&self, messages: &[Message]) -> Result<Prompt, ModelError> {
        let marks = Marks::for_messages(messages);
        let mut generated: Vec<&[u32]> = Vec::new();
        for part in messages.iter().flat_map(|message| &message.parts) {
            if let Part::Generated { token_ids, .. } = part {
                generated.push(token_ids);
            }
        }
        let mut number = 0;
        let text = self.template.render(messages, |text, ids| {
            number += 1;
            // Without ids there is only the text to go by.
            if ids.is_empty() { text.to_owned() } else { marks.mark(number - 1) }
        })?;
        let mut pieces = Pieces { maker: self, images: self.images(messages)?.into_iter(), prompt: Built::default() };
        let mut rest = text.as_str();
        while let Some((before, number, after)) = marks.next(rest) {
            pieces.text(before)?;
            let ids = generated.get(number).ok_or_else(|| ModelError::Prompt("a mark in the text".to_owned()))?;
            ids.iter().for_each(|&id| pieces.prompt.push_text(id));
            rest = after;
        }
        pieces.text(rest)?;
        pieces.finish()
    }

    /// The images of all messages, in order, at a size that the tower can take.
    fn images(&self, messages: &[Message]) -> Result<Vec<RgbImage>, ModelError> {
        let multiple = self.processor.pixels.multiple;
        let parts = messages.iter().flat_map(|message| &message.parts);
        parts
            .filter_map(|part| match part {
                Part::Image(image) => Some(image),
                _ => None,
            })
            .map(|image| {
                let fits = [image.width, image.height].iter().all(|&side| side > 0 && side.is_multiple_of(multiple));
                if fits { Ok(image.clone()) } else { self.processor.resize(image) }
            })
            .collect()
    }
}

#[derive(Debug, Default)]
struct Built {
    ids: Vec<u32>,
    visual: Vec<bool>,
    keys: Vec<u64>,
    images: Vec<PromptImage>,
}

impl Built {
    fn push_text(&mut self, id: u32) {
        self.ids.push(id);
        self.visual.push(false);
        self.keys.push(text_key(id));
    }
}

/// A text token's key; image tokens have the highest bit set.
pub(crate) fn text_key(id: u32) -> u64 {
    u64::from(id)
}

struct Pieces<'a> {
    maker: &'a PromptMaker,
    images: std::vec::IntoIter<RgbImage>,
    prompt: Built,
}

impl Pieces<'_> {
    fn text(&mut self, text: &str) -> Result<(), ModelError> {
        if text.is_empty() {
            return Ok(());
        }
        for id in self.maker.tokenizer.encode(text)? {
            if id == self.maker.image_token_id {
                let image = self.images.next();
                self.image(image.ok_or_else(|| ModelError::Prompt("more image pads than images".to_owned()))?);
            } else {
                self.prompt.push_text(id);
            }
        }
        Ok(())
    }

    fn image(&mut self, image: RgbImage) {
        let (patch, merge) = (self.maker.patch, self.maker.settings.merge);
        let grid = Grid { t: 1, h: image.height as usize / patch, w: image.width as usize / patch };
        let tokens = grid.patches() / (merge * merge);
        let hash = image_hash(&image);
        let built = &mut self.prompt;
        let at = built.ids.len();
        let word = u64::from_le_bytes(std::array::from_fn(|i| hash[i]));
        for token in 0..tokens as u64 {
            built.ids.push(self.maker.image_token_id);
            built.visual.push(true);
            built.keys.push((word.wrapping_add(token.wrapping_mul(0x9e37_79b9_7f4a_7c15))) | 1 << 63);
        }
        built.images.push(PromptImage { image, grid, hash, at, tokens });
    }

    fn finish(mut self) -> Result<Prompt, ModelError> {
        if self.images.next().is_some() {
            return Err(ModelError::Prompt("the chat template left out an image".to_owned()));
        }
        let Built { ids, visual, keys, images } = self.prompt;
        if ids.is_empty() {
            return Err(ModelError::Prompt("it is empty".to_owned()));
        }
        let spans: Vec<VisualSpan> =
            images.iter().map(|image| VisualSpan { grid: image.grid, seconds_per_step: None }).collect();
        let positions = positions(&visual, &spans, self.maker.settings)?;
        Ok(Prompt { ids, images, positions, keys })
    }
}

fn image_hash(image: &RgbImage) -> ImageHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&image.width.to_le_bytes()).update(&image.height.to_le_bytes()).update(&image.data);
    *hasher.finalize().as_bytes()
}

/// Marks that stand for generated parts while the template runs: private-use characters around a number, with a letter
/// repeated until no message holds such a thing itself.
struct Marks {
    open: String,
}

const CLOSE: char = '\u{e001}';

impl Marks {
    fn for_messages(messages: &[Message]) -> Self {
        let mut open = "\u{e000}g".to_owned();
        let texts = || {
            messages.iter().flat_map(|message| &message.parts).filter_map(|part| match part {
                Part::Text(text) | Part::Generated { text, .. } => Some(text),
                Part::Image(_) => None,
            })
        };
        while texts().any(|text| text.contains(&open)) {
            open.push('g');
        }
        Self { open }
    }

    fn mark(&self, number: usize) -> String {
        format!("{}{number}{CLOSE}", self.open)
    }

    /// Text before the first mark, its number, and text after it.
    fn next<'t>(&self, text: &'t str) -> Option<(&'t str, usize, &'t str)> {
        let (before, rest) = text.split_once(&self.open)?;
        let (number, after) = rest.split_once(CLOSE)?;
        Some((before, number.parse().ok()?, after))
    }
}
