//! Where the canonical tensors are in llama.cpp's files: the language model's (architecture `qwen2vl`) and the vision
//! tower's (projector `qwen2.5vl_merger`, a file of its own by the name of mmproj).
//!
//! Rows of queries and keys are not permuted for these, unlike for llama. The tower's stacked queries, keys and values
//! are three tensors in the file, and its patch kernel is one per temporal copy.
//!
//! Source: llama.cpp, `conversion/qwenvl.py` and `gguf-py/gguf/tensor_mapping.py`
//! <https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/tensor_mapping.py>.

/// The tensors of a file that make up a canonical one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) names: Vec<String>,
    pub(crate) join: Join,
}

/// How they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// Their rows follow each other.
    Rows,
    /// `[hidden, channels, height, width]` each: the frames of `[hidden, channels, frames, height, width]`.
    Frames,
}

/// Where a canonical tensor is.
pub(crate) fn place(canonical: &str) -> Option<Place> {
    let one = |name: String| Some(Place { names: vec![name], join: Join::Rows });
    let whole = match canonical {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        "visual.merger.ln_q.weight" => Some("v.post_ln.weight"),
        _ => None,
    };
    if let Some(name) = whole {
        return one(name.to_owned());
    }
    if let Some(rest) = canonical.strip_prefix("model.layers.") {
        let (number, part) = rest.split_once('.')?;
        return one(format!("blk.{number}.{}", layer_part(part)?));
    }
    if let Some(rest) = canonical.strip_prefix("visual.merger.mlp.") {
        return one(format!("mm.{rest}"));
    }
    if canonical == "visual.patch_embed.proj.weight" {
        let names = ["v.patch_embd.weight", "v.patch_embd.weight.1"].map(str::to_owned).to_vec();
        return Some(Place { names, join: Join::Frames });
    }
    let (number, part) = canonical.strip_prefix("visual.blocks.")?.split_once('.')?;
    if let Some(kind) = part.strip_prefix("attn.qkv.") {
        let names = ["q", "k", "v"].map(|name| format!("v.blk.{number}.attn_{name}.{kind}")).to_vec();
        return Some(Place { names, join: Join::Rows });
    }
    one(format!("v.blk.{number}.{}", block_part(part)?))
}

fn layer_part(part: &str) -> Option<String> {
    let (module, kind) = part.rsplit_once('.')?;
    let name = match module {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("{name}.{kind}"))
}

fn block_part(part: &str) -> Option<String> {
    let (module, kind) = part.rsplit_once('.')?;
    let name = match module {
        "norm1" => "ln1",
        "norm2" => "ln2",
        "attn.proj" => "attn_out",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("{name}.{kind}"))
}
