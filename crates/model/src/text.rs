//! The language model: Qwen2 decoder layers (grouped-query attention, RMS norms, SwiGLU) with M-RoPE.
//! One call takes new tokens of any number of sequences, `[tokens, hidden]`, and reads the weights once; weights that
//! read the same input are stacked.
//!
//! Source: HF transformers, `models/qwen2_5_vl/modeling_qwen2_5_vl.py`, `Qwen2_5_VLTextModel`
//! <https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/qwen2_5_vl/modeling_qwen2_5_vl.py>.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::ModelError;
use crate::config::{Config, TextConfig};
use crate::kernels::{
    Heads, KvCache, KvMeter, KvSpan, Linear, Rotary, Threads, add_rms_norm, attention_mass, causal_attention,
    rms_norm, silu_mul,
};
use crate::kv::Cache;
use crate::loader::Loader;
use crate::rope::{Position, TextRotary};

/// New tokens of one sequence in a call of [`TextModel::forward_spans`].
#[derive(Debug)]
pub struct Span<'a> {
    /// What the sequence holds; the tokens are appended to it.
    pub cache: &'a mut Cache,
    /// How many tokens: one when decoding, a chunk of a prompt, proposals to verify.
    pub tokens: usize,
    /// Which of their rows are wanted.
    pub rows: Rows,
    /// Where the tokens are a tree instead of a chain: for each the token, counted from the span's first, that it
    /// follows; none where it follows the cache. A parent stands before its children. [`Cache::keep`] then keeps a path.
    pub tree: Option<&'a [Option<usize>]>,
}

/// Which rows of the output are wanted. The last layer does no more than they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// None: the call only fills the cache.
    None,
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

/// The language model and its head.
#[derive(Debug)]
pub struct TextModel {
    config: TextConfig,
    embed_tokens: Arc<Linear>,
    layers: Vec<Layer>,
    norm: Tensor,
    lm_head: Arc<Linear>,
    rotary: TextRotary,
    threads: Threads,
}

/// What can be watched of a call.
enum Seen<'a> {
    /// A layer's queries, keys and values with the cache that now holds the latter; only of calls with one span.
    Attention { qkv: &'a Tensor, cache: &'a KvCache },
    /// A layer's output before the next norm.
    Output { layer: usize, x: &'a Tensor },
}

#[derive(Debug)]
struct Layer {
    input_layernorm: Tensor,
    qkv_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: Tensor,
    gate_up_proj: Linear,
    down_proj: Linear,
}

impl TextModel {
    pub(crate) fn load(config: &Config, loader: &Loader<'_>) -> Result<Self, ModelError> {
        let text = &config.text;
        let (vocab, hidden) = (text.vocab_size, text.hidden_size);
        let (embed_tokens, lm_head) = loader.table_and_head(config.tie_word_embeddings, vocab, hidden)?;
        let layers = (0..text.num_hidden_layers)
            .map(|number| Layer::load(text, number, loader))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            config: text.clone(),
            embed_tokens,
            layers,
            norm: loader.norm("model.norm", hidden)?,
            lm_head,
            rotary: TextRotary::new(text, loader.device),
            threads: loader.threads.clone(),
        })
    }

    /// An empty cache for one sequence.
    pub fn new_cache(&self) -> Cache {
        self.metered_cache(&KvMeter::default())
    }

    /// The same, whose memory is counted by `meter`.
    pub(crate) fn metered_cache(&self, meter: &KvMeter) -> Cache {
        Cache::new(self.layers.len(), self.config.num_key_value_heads, self.config.head_dim(), meter)
    }

    /// Bytes that a cache of so many tokens takes.
    pub(crate) fn cache_bytes(&self, tokens: usize) -> usize {
        self.layers.len() * KvCache::bytes_of(tokens, &self.heads(), &self.norm)
    }

    /// Whether forks of a cache share its memory; else the first write to a fork copies all of it.
    pub(crate) fn forks_share(&self) -> bool {
        KvCache::clones_share(&self.norm)
    }

    /// Logits to a row.
    pub(crate) fn vocab(&self) -> usize {
        self.lm_head.out_features()
    }

    /// `[ids, hidden]`
    ///
    /// # Errors
    /// Where an id is not in the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor, ModelError> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            let vocab = self.config.vocab_size;
            return Err(ModelError::Prompt(format!(
                "token {id} is not in the model's vocabulary of {vocab}"
            )));
        }
        Ok(self.embed_tokens.rows(ids)?)
    }

    /// The same for ids that this model chose and that lie on its device.
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn embed_there(&self, ids: &Tensor) -> Result<Tensor, ModelError> {
        Ok(self.embed_tokens.rows_there(ids)?)
    }

    /// Rotary tables of these positions.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn rotary(&self, positions: &[Position]) -> Result<Rotary, ModelError> {
        self.rotary.at(positions)
    }

    /// Runs `x` (`[tokens, hidden]`) after what the cache holds, appends to the cache and gives the wanted rows after
    /// the last norm, none where none are wanted.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn forward(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        cache: &mut Cache,
        rows: Rows,
    ) -> Result<Option<Tensor>, ModelError> {
        let tokens = x.dim(0)?;
        self.forward_spans(x, rotary, &mut [Span { cache, tokens, rows, tree: None }])
    }

    /// As [`TextModel::forward`] for several sequences at once: `x` and `rotary` hold the spans' tokens one span after
    /// the other, and so does the result the wanted rows. On the CPU each row has the same bits as in a call of its own.
    ///
    /// # Errors
    /// Where spans and rows do not match, or the device fails. Caches may then have layers of unequal length.
    pub fn forward_spans(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        spans: &mut [Span<'_>],
    ) -> Result<Option<Tensor>, ModelError> {
        self.run(x, rotary, spans, |_| Ok(()))
    }

    /// Runs one span for what it looks at: for each layer the attention that each token of the cache gets from the
    /// span's, see [`attention_mass`].
    pub(crate) fn forward_watched(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        span: Span<'_>,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut layers = Vec::with_capacity(self.layers.len());
        let heads = self.heads();
        self.run(x, rotary, &mut [span], |seen| {
            if let Seen::Attention { qkv, cache } = seen {
                layers.push(attention_mass(qkv, rotary, &heads, cache)?);
            }
            Ok(())
        })?;
        Ok(layers)
    }

    /// As [`TextModel::forward`] for all rows; `see` gets each layer's output before the next norm, for checks.
    pub(crate) fn forward_seen(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        cache: &mut Cache,
        mut see: impl FnMut(usize, &Tensor),
    ) -> Result<Option<Tensor>, ModelError> {
        let tokens = x.dim(0)?;
        self.run(x, rotary, &mut [Span { cache, tokens, rows: Rows::All, tree: None }], |seen| {
            if let Seen::Output { layer, x } = seen {
                see(layer, x);
            }
            Ok(())
        })
    }

    fn run(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        spans: &mut [Span<'_>],
        mut see: impl FnMut(Seen<'_>) -> Result<(), ModelError>,
    ) -> Result<Option<Tensor>, ModelError> {
        let (heads, eps) = (self.heads(), self.config.rms_norm_eps);
        let Some(first) = self.layers.first() else {
            return Err(ModelError::Prompt("a model without layers".to_owned()));
        };
        let wanted = wanted_rows(spans);
        let mut x = x.clone();
        let mut normed = rms_norm(&self.threads, &x, &first.input_layernorm, eps)?;
        for (number, layer) in self.layers.iter().enumerate() {
            let following = self.layers.get(number + 1);
            let qkv = layer.qkv_proj.forward(&normed)?; // [tokens, (query + 2 kv) * head_dim]
            let mut caches: Vec<KvSpan<'_>> = spans
                .iter_mut()
                .map(|span| KvSpan { cache: span.cache.layer(number), tokens: span.tokens, tree: span.tree })
                .collect();
            let mut attended = causal_attention(&self.threads, &qkv, rotary, &heads, &mut caches)?;
            if let [only] = &caches[..] {
                see(Seen::Attention { qkv: &qkv, cache: only.cache })?;
            }
            if following.is_none() {
                if wanted.is_empty() {
                    return Ok(None);
                }
                (attended, x) = (pick(&attended, &wanted)?, pick(&x, &wanted)?);
            }
            let attended = layer.o_proj.forward(&attended)?;
            let (sum, inner) =
                add_rms_norm(&self.threads, &attended, &x, &layer.post_attention_layernorm, eps)?;
            let mlp = layer.mlp(&self.threads, &inner)?;
            let norm = following.map_or(&self.norm, |layer| &layer.input_layernorm);
            (x, normed) = add_rms_norm(&self.threads, &mlp, &sum, norm, eps)?;
            see(Seen::Output { layer: number, x: &x })?;
        }
        Ok(Some(normed))
    }

    /// Logits of hidden rows: `[rows, vocab]`
    ///
    /// # Errors
    /// Where the device fails.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        Ok(self.lm_head.forward(hidden)?)
    }

    fn heads(&self) -> Heads {
        Heads {
            query: self.config.num_attention_heads,
            kv: self.config.num_key_value_heads,
            dim: self.config.head_dim(),
        }
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        self.norm.device()
    }
}

/// Numbers of the rows that are wanted, over all spans.
fn wanted_rows(spans: &[Span<'_>]) -> Vec<u32> {
    let (mut first, mut wanted) = (0, Vec::new());
    for span in spans {
        let end = first + span.tokens as u32;
        match span.rows {
            Rows::None => {}
            Rows::Last => wanted.extend((first..end).last()),
            Rows::All => wanted.extend(first..end),
        }
        first = end;
    }
    wanted
}

/// These rows of `x`, which are rising and each once.
fn pick(x: &Tensor, rows: &[u32]) -> Result<Tensor, ModelError> {
    if rows.len() == x.dim(0)? {
        return Ok(x.clone());
    }
    Ok(x.index_select(&Tensor::new(rows, x.device())?, 0)?)
}

impl Layer {
    fn load(config: &TextConfig, number: usize, loader: &Loader<'_>) -> Result<Self, ModelError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let kv = config.num_key_value_heads * config.head_dim();
        let name = |part: &str| format!("model.layers.{number}.{part}");
        Ok(Self {
            input_layernorm: loader.norm(&name("input_layernorm"), hidden)?,
            qkv_proj: loader.linear(
                &[
                    (name("self_attn.q_proj"), hidden),
                    (name("self_attn.k_proj"), kv),
                    (name("self_attn.v_proj"), kv),
                ],
                hidden,
                true,
            )?,
            o_proj: loader.linear(&[(name("self_attn.o_proj"), hidden)], hidden, false)?,
            post_attention_layernorm: loader.norm(&name("post_attention_layernorm"), hidden)?,
            gate_up_proj: loader.linear(
                &[(name("mlp.gate_proj"), inner), (name("mlp.up_proj"), inner)],
                hidden,
                false,
            )?,
            down_proj: loader.linear(&[(name("mlp.down_proj"), hidden)], inner, false)?,
        })
    }

    fn mlp(&self, threads: &Threads, x: &Tensor) -> Result<Tensor, ModelError> {
        let gate_up = self.gate_up_proj.forward(x)?; // [tokens, 2 * intermediate]
        Ok(self.down_proj.forward(&silu_mul(threads, &gate_up)?)?)
    }
}
