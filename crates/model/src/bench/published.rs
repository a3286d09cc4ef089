//! The published shapes of Qwen2.5-VL, whose weights are drawn on a device.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};

/// A published shape of Qwen2.5-VL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PublishedSize {
    /// Qwen2.5-VL-3B-Instruct.
    #[serde(rename = "3b")]
    B3,
    /// Qwen2.5-VL-7B-Instruct.
    #[serde(rename = "7b")]
    B7,
    /// None that was published: a few layers, to see that everything runs. No figure of it means anything.
    #[serde(rename = "tiny")]
    Tiny,
}

impl fmt::Display for PublishedSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::B3 => "3b",
            Self::B7 => "7b",
            Self::Tiny => "tiny",
        })
    }
}

impl FromStr for PublishedSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "3b" => Ok(Self::B3),
            "7b" => Ok(Self::B7),
            "tiny" => Ok(Self::Tiny),
            _ => Err(format!("size {text:?} is unknown: use 3b or 7b")),
        }
    }
}

impl PublishedSize {
    /// The published config.json, as far as it is read.
    pub(super) fn config(self) -> Value {
        let (hidden, inner, layers, heads, kv, vocab, tied) = match self {
            Self::B3 => (2048, 11_008, 36, 16, 2, 151_936, true),
            Self::B7 => (3584, 18_944, 28, 28, 4, 152_064, false),
            Self::Tiny => (64, 96, 2, 4, 2, 4000, true),
        };
        let (mrope, vision) = match self {
            Self::Tiny => (
                [2, 3, 3],
                json!({ "out_hidden_size": hidden, "hidden_size": 64, "depth": 2, "num_heads": 4, "intermediate_size": 64,
                        "fullatt_block_indexes": [1] }),
            ),
            _ => (
                [16, 24, 24],
                json!({ "out_hidden_size": hidden, "hidden_size": 1280, "tokens_per_second": 2 }),
            ),
        };
        json!({
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "model_type": "qwen2_5_vl",
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv,
            "vocab_size": vocab,
            "tie_word_embeddings": tied,
            "max_position_embeddings": 128_000,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "rope_scaling": { "type": "mrope", "mrope_section": mrope },
            "vision_config": vision,
        })
    }
}
