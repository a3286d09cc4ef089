//! The models that are measured: the shape of Qwen2.5-VL at two sizes of the language model.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use candle_core::{DType, Device};
use serde::Serialize;
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::Config;
use crate::files::ModelFiles;
use crate::kernels::Threads;
use crate::network::Network;
use crate::weights::Weights;

const SEED: u64 = 1;
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// No token ends a turn: all generations have the length that is asked for.
const NO_END: &[u8] = br#"{"eos_token_id": 4294967295}"#;

/// Parameters of the language model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Size {
    /// 62 million: 12 layers of width 512; with a tower of 8 blocks of width 640.
    #[serde(rename = "60m")]
    M60,
    /// 494 million, the shape of Qwen2.5-0.5B: 24 layers of width 896; with 8 of the published tower's 32 blocks.
    #[serde(rename = "500m")]
    M500,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::M60 => "60m",
            Self::M500 => "500m",
        })
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "60m" => Ok(Self::M60),
            "500m" => Ok(Self::M500),
            _ => Err(format!("size {text:?} is unknown: use 60m or 500m")),
        }
    }
}

/// A model's shape, for the report.
#[derive(Clone, Debug, Serialize)]
pub struct Shape {
    /// Which.
    pub size: Size,
    /// Its config.json.
    pub config: Value,
}

/// The numbers that differ between the sizes.
struct Numbers {
    vocab: usize,
    hidden: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    vision_hidden: usize,
    vision_inner: usize,
    vision_heads: usize,
}

impl Size {
    pub(super) fn folder(self) -> String {
        // The number changes with the configs below.
        format!("model-{self}-1")
    }

    /// Width of the logits.
    pub(super) fn vocab(self) -> usize {
        self.numbers().vocab
    }

    pub(super) fn shape(self) -> Shape {
        Shape { size: self, config: self.config() }
    }

    fn numbers(self) -> Numbers {
        match self {
            Self::M60 => Numbers {
                vocab: 32_000,
                hidden: 512,
                inner: 2048,
                layers: 12,
                heads: 8,
                vision_hidden: 640,
                vision_inner: 1712,
                vision_heads: 8,
            },
            Self::M500 => Numbers {
                vocab: 151_936,
                hidden: 896,
                inner: 4864,
                layers: 24,
                heads: 14,
                vision_hidden: 1280,
                vision_inner: 3420,
                vision_heads: 16,
            },
        }
    }

    fn config(self) -> Value {
        let numbers = self.numbers();
        let last = numbers.vocab - 1;
        json!({
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "model_type": "qwen2_5_vl",
            "dtype": "float32",
            "tie_word_embeddings": true,
            "image_token_id": last,
            "video_token_id": last - 1,
            "vision_start_token_id": last - 2,
            "vision_end_token_id": last - 3,
            "text_config": {
                "model_type": "qwen2_5_vl_text",
                "hidden_act": "silu",
                "hidden_size": numbers.hidden,
                "intermediate_size": numbers.inner,
                "num_hidden_layers": numbers.layers,
                "num_attention_heads": numbers.heads,
                "num_key_value_heads": 2,
                "max_position_embeddings": 32_768,
                "rms_norm_eps": 1e-6,
                "rope_parameters": { "rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12] },
                "tie_word_embeddings": true,
                "use_sliding_window": false,
                "eos_token_id": last - 4,
                "vocab_size": numbers.vocab,
            },
            "vision_config": {
                "model_type": "qwen2_5_vl_vision",
                "hidden_act": "silu",
                "depth": 8,
                "fullatt_block_indexes": [7],
                "hidden_size": numbers.vision_hidden,
                "intermediate_size": numbers.vision_inner,
                "num_heads": numbers.vision_heads,
                "in_channels": 3,
                "out_hidden_size": numbers.hidden,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "tokens_per_second": 2,
                "window_size": 112,
            },
        })
    }
}

/// Writes the size's checkpoint where it is not there yet.
pub(super) fn prepare(size: Size, folder: &Path, tokenizer: &[u8]) -> Result<(), ModelError> {
    std::fs::create_dir_all(folder).map_err(|source| read_error(folder, source))?;
    let text = size.config().to_string();
    write(folder, CONFIG, text.as_bytes())?;
    write(folder, "tokenizer.json", tokenizer)?;
    write(folder, "generation_config.json", NO_END)?;
    write_weights(&text, folder, |_| 1.0)
}

/// The size's weights in a folder that also has tokenizer, chat template and prompts of another checkpoint; the ids of
/// images are that tokenizer's. Gives the folder.
pub(super) fn prepare_for_loops(size: Size, cache: &Path, style: &ModelFiles) -> Result<PathBuf, ModelError> {
    let weights = cache.join(size.folder());
    prepare(size, &weights, &style.require("tokenizer.json")?)?;
    let folder = cache.join(format!("loop-{size}-1"));
    write_style(size.config(), &folder, style)?;
    let link = folder.join(WEIGHTS);
    if !link.exists() {
        let target = weights.join(WEIGHTS);
        std::fs::hard_link(&target, &link).map_err(|source| read_error(&link, source))?;
    }
    Ok(folder)
}

/// Writes a folder with this config, and with the tokenizer, chat template and prompts of another checkpoint, whose ids of
/// images the config gets; no weights.
pub(super) fn write_style(mut config: Value, folder: &Path, style: &ModelFiles) -> Result<(), ModelError> {
    let prompts = folder.join("prompts");
    std::fs::create_dir_all(&prompts).map_err(|source| read_error(&prompts, source))?;
    let ids: Value =
        serde_json::from_slice(&style.require(CONFIG)?).map_err(|error| ModelError::broken(CONFIG, error))?;
    for name in ["image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"] {
        config[name] = ids[name].clone();
    }
    write(folder, CONFIG, config.to_string().as_bytes())?;
    write(folder, "tokenizer.json", &style.require("tokenizer.json")?)?;
    write(folder, "generation_config.json", NO_END)?;
    for name in ["tokenizer_config.json", "prompts/target.jinja", "prompts/draft.jinja"] {
        if let Some(bytes) = style.read(name)? {
            write(folder, name, &bytes)?;
        }
    }
    Ok(())
}

/// A target with the tokenizer and prompts of another checkpoint, and a draft that is the first quarter of its layers. Random
/// tensors are drawn from their names, so that both have the same ones; what the target's other layers add is so little
/// that the two agree more often than not.
pub(super) fn prepare_shared(
    size: Size,
    cache: &Path,
    style: &ModelFiles,
) -> Result<(PathBuf, PathBuf), ModelError> {
    let layers = size.numbers().layers;
    let shared = layers / 4;
    // The number changes with what is done here.
    let [target, draft] = ["quiet", "quarter"].map(|name| cache.join(format!("{name}-{size}-2")));
    for (folder, layers) in [(&target, layers), (&draft, shared)] {
        let mut config = size.config();
        config["text_config"]["num_hidden_layers"] = json!(layers);
        // With the table as the head a random model says the same token for ever.
        config["tie_word_embeddings"] = json!(false);
        config["text_config"]["tie_word_embeddings"] = json!(false);
        write_style(config, folder, style)?;
        let config = ModelFiles::folder(folder).require(CONFIG)?;
        write_weights(&String::from_utf8_lossy(&config), folder, |name| quiet(name, shared))?;
    }
    Ok((target, draft))
}

/// The factor of what layers from `first` on add.
fn quiet(name: &str, first: usize) -> f32 {
    const LITTLE: f32 = 0.05;
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
    let adds = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    if adds && layer.is_some_and(|layer: usize| layer >= first) { LITTLE } else { 1.0 }
}

/// Writes the random weights that a config asks for, where they are not there yet.
fn write_weights(config: &str, folder: &Path, scale: impl Fn(&str) -> f32) -> Result<(), ModelError> {
    let weights = folder.join(WEIGHTS);
    if weights.is_file() {
        return Ok(());
    }
    let random = Weights::random(SEED);
    // Loading asks for every tensor, which is how the weights learn their names and shapes.
    Network::load(&Config::parse(config.as_bytes())?, &random, &Device::Cpu, DType::F32, &Threads::new(0))?;
    let part = folder.join("model.safetensors.part");
    random.write_random(&part, scale)?;
    std::fs::rename(&part, &weights).map_err(|source| read_error(&weights, source))
}

pub(super) fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), ModelError> {
    let path = folder.join(name);
    std::fs::write(&path, bytes).map_err(|source| read_error(&path, source))
}

pub(super) fn read_error(path: &Path, source: std::io::Error) -> ModelError {
    ModelError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_their_names_say() {
        for (size, millions) in [(Size::M60, 62), (Size::M500, 494)] {
            assert_eq!(size.to_string().parse(), Ok(size));
            let config = Config::parse(size.config().to_string().as_bytes()).unwrap();
            let text = &config.text;
            let (hidden, kv) = (text.hidden_size, text.num_key_value_heads * text.head_dim());
            let attention = 2 * hidden * (hidden + kv) + hidden + 2 * kv;
            let layer = attention + 3 * hidden * text.intermediate_size + 2 * hidden;
            assert!(config.tie_word_embeddings);
            let all = text.vocab_size * hidden + text.num_hidden_layers * layer + hidden;
            assert_eq!((all + 500_000) / 1_000_000, millions);
        }
        assert!("7b".parse::<Size>().is_err());
        assert_eq!(
            quiet("model.layers.3.mlp.down_proj.weight", 3),
            quiet("model.layers.11.self_attn.o_proj.weight", 3)
        );
        assert!(quiet("model.layers.3.mlp.down_proj.weight", 3) < 1.0);
        for kept in
            ["model.layers.2.mlp.down_proj.weight", "model.layers.3.mlp.up_proj.weight", "model.norm.weight"]
        {
            assert_eq!(quiet(kept, 3), 1.0);
        }
    }
}
