//! The checkpoint's `tokenizer.json`, and text that grows token by token.

use std::sync::Arc;

use tokenizers::Tokenizer as Inner;

use crate::ModelError;
use crate::files::ModelFiles;

const FILE: &str = "tokenizer.json";

/// A tokenizer. Special tokens in a text become their ids, as in HF.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Broken`].
    pub fn open(files: &ModelFiles) -> Result<Self, ModelError> {
        let mut inner =
            Inner::from_bytes(files.require(FILE)?).map_err(|error| ModelError::broken(FILE, error))?;
        // A file written during training may carry them; a prompt is never cut or filled up.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| ModelError::broken(FILE, error))?;
        Ok(Self { inner })
    }

    /// A text's ids, nothing added.
    ///
    /// # Errors
    /// Where the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.encode_fast(text, false);
        Ok(encoding.map_err(|error| ModelError::Prompt(format!("tokenizer: {error}")))?.get_ids().to_vec())
    }

    /// As it would stand in `tokenizer.json`.
    pub(crate) fn json(&self) -> Result<serde_json::Value, ModelError> {
        let text = self.inner.to_string(false).map_err(|error| ModelError::broken(FILE, error))?;
        serde_json::from_str(&text).map_err(|error| ModelError::broken(FILE, error))
    }

    /// The text of ids.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, ModelError> {
        let text = self.inner.decode(ids, skip_special_tokens);
        text.map_err(|error| ModelError::Prompt(format!("tokenizer: {error}")))
    }
}

/// Text that grows by tokens. A character whose bytes are spread over tokens appears with its last one, so that every
/// length is a character's border. Special tokens leave no text.
#[derive(Debug)]
pub(crate) struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    text: String,
    /// Tokens since the last but one piece of text; decoders that look back need a neighbour.
    window: Vec<u32>,
    /// How many of them are in the text.
    shown: usize,
}

impl Detokenizer {
    pub(crate) fn new(tokenizer: &Arc<Tokenizer>) -> Self {
        Self { tokenizer: Arc::clone(tokenizer), text: String::new(), window: Vec::new(), shown: 0 }
    }

    pub(crate) fn tokenizer(&self) -> Arc<Tokenizer> {
        Arc::clone(&self.tokenizer)
    }

    /// Appends a token and gives the text's length.
    pub(crate) fn push(&mut self, id: u32) -> Result<usize, ModelError> {
        self.window.push(id);
        let (before, all) = self.decoded()?;
        if !all.ends_with(char::REPLACEMENT_CHARACTER) {
            self.show(&before, &all);
        }
        Ok(self.text.len())
    }

    /// The text so far, whole characters only.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The whole text; bytes that never became a character are replaced.
    pub(crate) fn finish(mut self) -> Result<String, ModelError> {
        if self.shown < self.window.len() {
            let (before, all) = self.decoded()?;
            self.show(&before, &all);
        }
        Ok(self.text)
    }

    fn decoded(&self) -> Result<(String, String), ModelError> {
        let before = self.tokenizer.decode(&self.window[..self.shown], true)?;
        Ok((before, self.tokenizer.decode(&self.window, true)?))
    }

    fn show(&mut self, before: &str, all: &str) {
        self.text.push_str(all.strip_prefix(before).unwrap_or(all));
        self.window.drain(..self.shown);
        self.shown = self.window.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_grows_by_whole_characters() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/untied/model");
        let tokenizer = Arc::new(Tokenizer::open(&ModelFiles::folder(folder)).unwrap());
        for text in ["déjà 日本語 🙂 done", "<think>x</think>", "🙂", "", "a\n\n  b"] {
            let mut growing = Detokenizer::new(&tokenizer);
            let mut last = 0;
            for id in tokenizer.encode(text).unwrap() {
                let length = growing.push(id).unwrap();
                assert!(length >= last && text.is_char_boundary(length), "{text:?} at {length}");
                last = length;
            }
            assert_eq!(last, text.len());
            assert_eq!(growing.finish().unwrap(), text);
        }
    }

    #[test]
    fn broken_characters_are_replaced_at_the_end() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/untied/model");
        let tokenizer = Arc::new(Tokenizer::open(&ModelFiles::folder(folder)).unwrap());
        let ids = tokenizer.encode("a🙂").unwrap();
        let mut growing = Detokenizer::new(&tokenizer);
        let lengths: Vec<usize> = ids[..ids.len() - 1].iter().map(|&id| growing.push(id).unwrap()).collect();
        assert_eq!(lengths.last(), Some(&1));
        let text = growing.finish().unwrap();
        assert!(text.starts_with('a') && text.ends_with(char::REPLACEMENT_CHARACTER), "{text:?}");
    }
}
