//! Whether a GGUF file is of the model that config.json describes: its metadata says the language model's shape again.

use super::Gguf;
use super::header::Value;
use crate::ModelError;
use crate::config::TextConfig;

/// What llama.cpp calls Qwen2-VL and Qwen2.5-VL.
const ARCHITECTURE: &str = "qwen2vl";

/// # Errors
/// [`ModelError::Unsupported`] for another architecture, [`ModelError::Broken`] where file and config differ.
pub(crate) fn check_config(file: &Gguf, config: &TextConfig) -> Result<(), ModelError> {
    match file.header.metadata.get("general.architecture") {
        Some(Value::Text(name)) if name == ARCHITECTURE => {}
        Some(Value::Text(name)) => {
            let what = format!("general.architecture {name} (only {ARCHITECTURE})");
            return Err(ModelError::unsupported(file.name(), what));
        }
        _ => return Err(ModelError::broken(file.name(), "general.architecture is missing")),
    }
    let check = Check { file };
    check.whole("block_count", config.num_hidden_layers)?;
    check.whole("embedding_length", config.hidden_size)?;
    check.whole("feed_forward_length", config.intermediate_size)?;
    check.whole("attention.head_count", config.num_attention_heads)?;
    check.whole("attention.head_count_kv", config.num_key_value_heads)?;
    check.float("attention.layer_norm_rms_epsilon", config.rms_norm_eps)?;
    check.float("rope.freq_base", config.rope_theta)?;
    check.sections(&config.mrope_section)
}

struct Check<'a> {
    file: &'a Gguf,
}

impl Check<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.file.header.metadata.get(&format!("{ARCHITECTURE}.{key}"))
    }

    fn wrong(&self, key: &str, wanted: &dyn std::fmt::Debug) -> ModelError {
        let reason = match self.value(key) {
            Some(got) => format!("{ARCHITECTURE}.{key} is {got:?}, config.json says {wanted:?}"),
            None => format!("{ARCHITECTURE}.{key} is missing"),
        };
        ModelError::broken(self.file.name(), reason)
    }

    fn whole(&self, key: &str, wanted: usize) -> Result<(), ModelError> {
        match self.value(key) {
            Some(Value::Whole(got)) if *got == wanted as u64 => Ok(()),
            _ => Err(self.wrong(key, &wanted)),
        }
    }

    /// Floats are f32 in the file.
    fn float(&self, key: &str, wanted: f64) -> Result<(), ModelError> {
        match self.value(key) {
            Some(Value::Float(got)) if (got - wanted).abs() <= wanted.abs() * 1e-6 => Ok(()),
            _ => Err(self.wrong(key, &wanted)),
        }
    }

    /// The file's four sections end with zeros. Older files do not have them.
    fn sections(&self, wanted: &[usize]) -> Result<(), ModelError> {
        const KEY: &str = "rope.dimension_sections";
        let Some(value) = self.value(KEY) else { return Ok(()) };
        let padded = |index: usize| wanted.get(index).map_or(0, |side| *side as u64);
        match value {
            Value::Wholes(got)
                if got.len() >= wanted.len() && got.iter().enumerate().all(|(i, got)| *got == padded(i)) =>
            {
                Ok(())
            }
            _ => Err(self.wrong(KEY, &wanted)),
        }
    }
}
