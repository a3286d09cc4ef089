//! From messages to token ids: the chat template's text is tokenised as a whole between generated parts, whose ids are
//! taken as they are; each image pad is repeated for the image's tokens.

use std::sync::Arc;

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

impl Prompt {
    /// Places of all visual tokens, rising.
    pub(crate) fn visual(&self) -> Vec<usize> {
        self.images.iter().flat_map(|image| image.at..image.at + image.tokens).collect()
    }
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
    pub(crate) tokenizer: Arc<Tokenizer>,
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
        let mut pieces =
            Pieces { maker: self, images: self.images(messages)?.into_iter(), prompt: Built::default() };
        let mut rest = text.as_str();
        while let Some((before, number, after)) = marks.next(rest) {
            pieces.text(before)?;
            let ids =
                generated.get(number).ok_or_else(|| ModelError::Prompt("a mark in the text".to_owned()))?;
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
                let fits =
                    [image.width, image.height].iter().all(|&side| side > 0 && side.is_multiple_of(multiple));
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
                self.image(
                    image.ok_or_else(|| ModelError::Prompt("more image pads than images".to_owned()))?,
                );
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use spectemp_engine::Role;

    use super::*;
    use crate::config::Config;
    use crate::files::ModelFiles;
    use crate::golden::Golden;
    use crate::rope::PositionRule;

    fn data(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
    }

    fn maker(folder: &std::path::Path) -> PromptMaker {
        let files = ModelFiles::folder(folder);
        let config = Config::parse(&files.require("config.json").unwrap()).unwrap();
        PromptMaker {
            template: ChatTemplate::open(&files).unwrap(),
            tokenizer: Arc::new(Tokenizer::open(&files).unwrap()),
            processor: Processor::open(&files, &config.vision).unwrap(),
            image_token_id: config.image_token_id,
            settings: PositionSettings { rule: PositionRule::Published, merge: 2, tokens_per_second: 2.0 },
            patch: config.vision.patch_size,
        }
    }

    fn image(width: u32, height: u32) -> Part {
        Part::Image(RgbImage { width, height, data: vec![7; (width * height * 3) as usize].into() })
    }

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    fn user(parts: Vec<Part>) -> Message {
        Message { role: Role::User, parts }
    }

    /// The default template, the tokenizer, the pads and the positions at once.
    #[test]
    fn prompts_of_the_golden_cases_are_theirs_token_by_token() {
        let maker = maker(&data("untied/model"));
        let said = "<think>the blue scene is in the second frame</think><segment>(12.5, 60.0)</segment>";
        let small = || image(56, 56);
        let cases = [
            ("text_only", vec![user(vec![text("What digit flashes during the blue striped scene?")])]),
            ("one_image", vec![user(vec![image(140, 112), text("Describe the image in detail.")])]),
            (
                "three_images",
                vec![user(vec![
                    text("first "),
                    image(84, 56),
                    text(" then "),
                    image(196, 140),
                    text("\nlast "),
                    image(112, 28),
                    text("What digit?"),
                ])],
            ),
            (
                "multiturn",
                vec![
                    user(vec![text("0: "), small(), text("1: "), small(), text("What digit flashes?")]),
                    Message { role: Role::Assistant, parts: vec![text(said)] },
                    user(vec![text("2: "), small(), text("3: "), small()]),
                ],
            ),
        ];
        for (case, messages) in cases {
            let golden = Golden::open(&data(&format!("untied/{case}.safetensors"))).unwrap();
            let prompt = maker.make(&messages).unwrap();
            assert_eq!(Some(&prompt.ids), golden.ids("input_ids").unwrap().as_ref(), "{case}");
            assert_eq!(Some(&prompt.positions), golden.positions("position_ids").unwrap().as_ref(), "{case}");
            assert_eq!(prompt.keys.len(), prompt.ids.len());
        }
    }

    #[test]
    fn generated_parts_keep_their_ids() {
        let maker = maker(&data("untied/model"));
        // Ids that the tokenizer would never choose for this text.
        let odd = vec![64, 64, 421, 65];
        let said = Part::Generated { text: "aab \u{e000}g0\u{e001}".to_owned(), token_ids: odd.clone() };
        let turn = |said: Part| {
            maker
                .make(&[
                    user(vec![text("x")]),
                    Message { role: Role::Assistant, parts: vec![said] },
                    user(vec![text("\u{e000}g1\u{e001} \u{e000}gg")]),
                ])
                .unwrap()
        };
        let prompt = turn(said);
        let at = prompt.ids.windows(odd.len()).position(|window| window == odd);
        let before = maker.tokenizer.encode("<|im_start|>assistant\n").unwrap();
        let at = at.expect("the ids are there");
        assert_eq!(prompt.ids[at - before.len()..at], before[..]);
        assert_eq!(maker.tokenizer.decode(&prompt.ids[at + odd.len()..][..1], false).unwrap(), "<|im_end|>");
        // A pad that the model wrote is text, not an image.
        assert!(prompt.images.is_empty());
        let plain = turn(Part::Generated { text: "aab".to_owned(), token_ids: vec![] });
        assert_eq!(plain.ids, turn(text("aab")).ids);
    }

    #[test]
    fn images_without_pads_and_pads_without_images_are_refused() {
        let maker = maker(&data("untied/model"));
        let error = maker.make(&[user(vec![text("<|image_pad|>")])]).unwrap_err().to_string();
        assert!(error.contains("more image pads"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "tokenizer.json"] {
            std::fs::copy(data("untied/model").join(file), folder.path().join(file)).unwrap();
        }
        let template = "{% for m in messages %}{{ m.role.upper() }}{% endfor %}";
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        let error = self::maker(folder.path()).make(&[user(vec![image(28, 28)])]).unwrap_err().to_string();
        assert!(error.contains("left out an image"), "{error}");
    }

    #[test]
    fn other_sizes_are_scaled_and_equal_images_have_equal_keys() {
        let maker = maker(&data("untied/model"));
        let prompt = maker.make(&[user(vec![image(100, 50), image(100, 50), image(84, 56)])]).unwrap();
        let sizes: Vec<_> =
            prompt.images.iter().map(|image| (image.image.width, image.image.height)).collect();
        assert_eq!(sizes[0], (112, 56));
        let keys = |i: usize| &prompt.keys[prompt.images[i].at..][..prompt.images[i].tokens];
        assert_eq!(keys(0), keys(1));
        assert_ne!(keys(0)[0], keys(2)[0]);
        assert!(keys(0).windows(2).all(|pair| pair[0] != pair[1]));
    }
}
