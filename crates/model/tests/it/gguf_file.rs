//! Writes GGUF files as llama.cpp's converter does: names, order of sides, alignment, metadata of the architecture `qwen2vl`.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use spectemp_model::config::TextConfig;

/// A value of the metadata.
pub(crate) enum Meta {
    Text(&'static str),
    U32(u32),
    F32(f32),
    I32s(Vec<i32>),
    Texts(Vec<String>),
}

/// A file to be written.
#[derive(Default)]
pub(crate) struct GgufFile {
    pub(crate) metadata: Vec<(String, Meta)>,
    /// Name, sides in row order, type, bytes.
    pub(crate) tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

impl GgufFile {
    /// The metadata of a language model.
    pub(crate) fn of(config: &TextConfig) -> Self {
        let mut file = Self::default();
        file.metadata.push(("general.architecture".to_owned(), Meta::Text("qwen2vl")));
        // A tokenizer's list, which readers skip.
        let tokens = (0..300).map(|token| format!("token {token}")).collect();
        file.metadata.push(("tokenizer.ggml.tokens".to_owned(), Meta::Texts(tokens)));
        for (key, value) in [
            ("block_count", config.num_hidden_layers),
            ("embedding_length", config.hidden_size),
            ("feed_forward_length", config.intermediate_size),
            ("attention.head_count", config.num_attention_heads),
            ("attention.head_count_kv", config.num_key_value_heads),
        ] {
            file.metadata.push((format!("qwen2vl.{key}"), Meta::U32(value as u32)));
        }
        let floats = [
            ("attention.layer_norm_rms_epsilon", config.rms_norm_eps),
            ("rope.freq_base", config.rope_theta),
        ];
        for (key, value) in floats {
            file.metadata.push((format!("qwen2vl.{key}"), Meta::F32(value as f32)));
        }
        let mut sections: Vec<i32> = config.mrope_section.iter().map(|side| *side as i32).collect();
        sections.resize(4, 0);
        file.metadata.push(("qwen2vl.rope.dimension_sections".to_owned(), Meta::I32s(sections)));
        file
    }

    /// Adds the language model's tensors; matrices have the type, all else is f32.
    pub(crate) fn language(
        mut self,
        tensors: &BTreeMap<String, Tensor>,
        kind: impl Fn(&str) -> GgmlDType,
    ) -> Self {
        for (name, tensor) in tensors {
            let Some(name) = language_name(name) else { continue };
            let kind = if tensor.rank() == 2 { kind(&name) } else { GgmlDType::F32 };
            self.push(&name, tensor, kind);
        }
        self
    }

    /// Adds the vision tower's tensors: queries, keys and values apart, a patch kernel per frame.
    pub(crate) fn vision(mut self, tensors: &BTreeMap<String, Tensor>, kind: GgmlDType) -> Self {
        self.metadata.push(("general.architecture".to_owned(), Meta::Text("clip")));
        for (name, tensor) in tensors.iter().filter(|(name, _)| name.starts_with("visual.")) {
            if name == "visual.patch_embed.proj.weight" {
                for (frame, name) in ["v.patch_embd.weight", "v.patch_embd.weight.1"].into_iter().enumerate()
                {
                    let kernel =
                        tensor.narrow(2, frame, 1).and_then(|kernel| kernel.squeeze(2)).expect("a frame");
                    self.push(name, &kernel, GgmlDType::F32);
                }
                continue;
            }
            let kind = if tensor.rank() == 2 { kind } else { GgmlDType::F32 };
            let name = vision_name(name);
            if name.contains("attn_qkv") {
                for (part, tensor) in
                    ["attn_q", "attn_k", "attn_v"].into_iter().zip(tensor.chunk(3, 0).expect("three"))
                {
                    self.push(&name.replace("attn_qkv", part), &tensor, kind);
                }
            } else {
                self.push(&name, tensor, kind);
            }
        }
        self
    }

    pub(crate) fn push(&mut self, name: &str, tensor: &Tensor, kind: GgmlDType) {
        let flat = tensor.to_dtype(DType::F32).and_then(|t| t.contiguous()).expect("floats");
        let bytes = match kind {
            GgmlDType::F32 => values(&flat).iter().flat_map(|value| value.to_le_bytes()).collect(),
            GgmlDType::F16 => {
                values(&flat).iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect()
            }
            GgmlDType::BF16 => {
                values(&flat).iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect()
            }
            _ => {
                QTensor::quantize(&flat, kind).and_then(|t| Ok(t.data()?.into_owned())).expect("whole blocks")
            }
        };
        self.tensors.push((name.to_owned(), tensor.dims().to_vec(), code(kind), bytes));
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0_u64;
        for (name, shape, code, bytes) in &self.tensors {
            put_text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|side| out.extend((*side as u64).to_le_bytes()));
            out.extend(code.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (bytes.len() as u64).next_multiple_of(32);
        }
        for (_, _, _, bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out
    }

    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).expect("writable");
    }
}

/// The tensors of a checkpoint's safetensors file, by their published names.
pub(crate) fn tensors(folder: &Path) -> BTreeMap<String, Tensor> {
    let tensors =
        candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).expect("readable");
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            (name.replace("model.language_model.", "model.").replace("model.visual.", "visual."), tensor)
        })
        .collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|t| t.to_vec1()).expect("floats")
}

fn language_name(name: &str) -> Option<String> {
    if name.starts_with("visual.") {
        return None;
    }
    let mut name = name.replace("model.layers.", "blk.");
    for (from, to) in [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(from, to);
    }
    Some(name)
}

fn vision_name(name: &str) -> String {
    let mut name = name.replace("visual.blocks.", "v.blk.");
    for (from, to) in [
        ("visual.merger.ln_q", "v.post_ln"),
        ("visual.merger.mlp.", "mm."),
        ("attn.qkv", "attn_qkv"),
        ("attn.proj", "attn_out"),
        ("norm1", "ln1"),
        ("norm2", "ln2"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(from, to);
    }
    name
}

fn code(kind: GgmlDType) -> u32 {
    match kind {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::BF16 => 30,
        other => unreachable!("{other:?} is written by no test"),
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Meta) {
    let tag = |out: &mut Vec<u8>, tag: u32| out.extend(tag.to_le_bytes());
    match value {
        Meta::Text(text) => {
            tag(out, 8);
            put_text(out, text);
        }
        Meta::U32(value) => {
            tag(out, 4);
            out.extend(value.to_le_bytes());
        }
        Meta::F32(value) => {
            tag(out, 6);
            out.extend(value.to_le_bytes());
        }
        Meta::I32s(values) => {
            tag(out, 9);
            tag(out, 5);
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        Meta::Texts(texts) => {
            tag(out, 9);
            tag(out, 8);
            out.extend((texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| put_text(out, text));
        }
    }
}
