//! `config.json` in all the spellings that Qwen2.5-VL checkpoints have: the published flat one (`rope_scaling`, `rope_theta`,
//! `in_chans`, text fields at the top) and the nested one of newer writers (`text_config`, `rope_parameters`, `in_channels`).
//! What this program does not compute is refused by name, because a silently ignored field gives wrong answers.
//! Defaults are those of HF transformers' `configuration_qwen2_5_vl.py`.

use serde_json::Value;

use crate::ModelError;

const FILE: &str = "config.json";

/// The whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The language model.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Stands for one merged patch of an image.
    pub image_token_id: u32,
    /// Stands for one merged patch of a video.
    pub video_token_id: u32,
    /// End tokens that the config names; a generation config may name others.
    pub eos_token_ids: Vec<u32>,
    /// Whether the head is the embedding table.
    pub tie_word_embeddings: bool,
}

/// The language model.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Added to the mean square.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are shared out to time, height, width (in turn, if there are more).
    pub mrope_section: Vec<usize>,
    /// Most tokens of a context.
    pub max_position_embeddings: usize,
}

impl TextConfig {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// The vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Colour channels.
    pub in_channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Patches per side that become one token.
    pub spatial_merge_size: usize,
    /// Frames per patch.
    pub temporal_patch_size: usize,
    /// Time positions per second of video.
    pub tokens_per_second: f64,
    /// Side of an attention window in pixels.
    pub window_size: usize,
    /// Width of the language model.
    pub out_hidden_size: usize,
    /// Blocks that attend to the whole image.
    pub fullatt_block_indexes: Vec<usize>,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

impl VisionConfig {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Patches that become one token.
    pub fn merge_unit(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }

    /// Tokens per side of an attention window.
    pub fn window_tokens(&self) -> usize {
        self.window_size / self.spatial_merge_size / self.patch_size
    }

    /// Values of a patch with one temporal copy.
    pub fn patch_values(&self) -> usize {
        self.in_channels * self.patch_size * self.patch_size
    }
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Broken`] for what is not a config, [`ModelError::Unsupported`] for what is not computed here.
    pub fn parse(bytes: &[u8]) -> Result<Self, ModelError> {
        let root: Value = serde_json::from_slice(bytes).map_err(|error| ModelError::broken(FILE, error))?;
        let root = Fields { value: &root, path: "" };
        refuse_other_models(&root)?;
        // Published checkpoints keep the text fields at the top.
        let text_fields = match root.child("text_config") {
            Some(child) => child,
            None => Fields { value: root.value, path: "" },
        };
        let vision_fields = root
            .child("vision_config")
            .ok_or_else(|| ModelError::broken(FILE, "vision_config is missing"))?;
        let text = parse_text(&text_fields)?;
        let vision = parse_vision(&vision_fields, &text)?;
        let tied =
            |fields: &Fields<'_>| fields.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self {
            image_token_id: root.id("image_token_id", 151_655)?,
            video_token_id: root.id("video_token_id", 151_656)?,
            eos_token_ids: token_ids(text_fields.get("eos_token_id").or(root.get("eos_token_id"))),
            tie_word_embeddings: tied(&root) || tied(&text_fields),
            text,
            vision,
        })
    }
}

/// Token ids written as a number, a list or null.
pub(crate) fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn refuse_other_models(root: &Fields<'_>) -> Result<(), ModelError> {
    match root.get("model_type").and_then(Value::as_str) {
        Some("qwen2_5_vl") => {}
        Some(other) => return Err(refuse(format!("model_type {other} (only qwen2_5_vl)"))),
        None => return Err(ModelError::broken(FILE, "model_type is missing")),
    }
    for name in ["quantization_config", "compression_config"] {
        if let Some(value) = root.get(name) {
            let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("set");
            return Err(refuse(format!("{name} ({method})")));
        }
    }
    Ok(())
}

fn parse_text(fields: &Fields<'_>) -> Result<TextConfig, ModelError> {
    fields.only("model_type", &["qwen2_5_vl_text", "qwen2_5_vl"])?;
    fields.only("hidden_act", &["silu"])?;
    if fields.get("quantization_config").is_some() {
        return Err(refuse("text_config.quantization_config"));
    }
    let heads = fields.size("num_attention_heads", None)?;
    let text = TextConfig {
        vocab_size: fields.size("vocab_size", None)?,
        hidden_size: fields.size("hidden_size", None)?,
        intermediate_size: fields.size("intermediate_size", None)?,
        num_hidden_layers: fields.size("num_hidden_layers", None)?,
        num_attention_heads: heads,
        num_key_value_heads: fields.size("num_key_value_heads", Some(heads))?,
        rms_norm_eps: fields.number("rms_norm_eps", 1e-5)?,
        rope_theta: 0.0,
        mrope_section: Vec::new(),
        max_position_embeddings: fields.size("max_position_embeddings", Some(32_768))?,
    };
    check_divides(&fields.name("num_attention_heads"), heads, "hidden_size", text.hidden_size)?;
    check_divides(
        &fields.name("num_key_value_heads"),
        text.num_key_value_heads,
        "num_attention_heads",
        heads,
    )?;
    let head_dim = fields.size("head_dim", Some(text.head_dim()))?;
    if head_dim != text.head_dim() {
        return Err(refuse(format!(
            "{} {head_dim} other than hidden_size / num_attention_heads",
            fields.name("head_dim")
        )));
    }
    refuse_sliding(fields, text.num_hidden_layers)?;
    parse_text_rope(fields, text)
}

/// Older writers keep the base at the top and the sections in `rope_scaling`; newer ones have both in `rope_parameters`.
fn parse_text_rope(fields: &Fields<'_>, mut text: TextConfig) -> Result<TextConfig, ModelError> {
    let rope = fields.child("rope_scaling").or_else(|| fields.child("rope_parameters"));
    let mut section = vec![16, 24, 24];
    text.rope_theta = fields.number("rope_theta", 1_000_000.0)?;
    if let Some(rope) = rope {
        rope.only("rope_type", &["default", "mrope"])?;
        rope.only("type", &["default", "mrope"])?;
        let partial = rope.number("partial_rotary_factor", 1.0)?;
        if partial != 1.0 {
            return Err(refuse(format!("partial_rotary_factor {partial}")));
        }
        text.rope_theta = rope.number("rope_theta", text.rope_theta)?;
        if rope.get("mrope_section").is_some() {
            section = rope.sizes("mrope_section")?;
        }
    }
    let half = text.head_dim() / 2;
    if !text.head_dim().is_multiple_of(2) || section.iter().sum::<usize>() != half {
        return Err(ModelError::broken(
            FILE,
            format!("mrope_section {section:?} must sum up to half a head ({} / 2)", text.head_dim()),
        ));
    }
    text.mrope_section = section;
    Ok(text)
}

fn refuse_sliding(fields: &Fields<'_>, layers: usize) -> Result<(), ModelError> {
    if let Some(types) = fields.get("layer_types").and_then(Value::as_array) {
        return match types.iter().filter_map(Value::as_str).find(|kind| *kind != "full_attention") {
            Some(kind) => Err(refuse(format!("layer_types with {kind}"))),
            None => Ok(()),
        };
    }
    let used = fields.get("use_sliding_window").and_then(Value::as_bool).unwrap_or(false);
    let from = fields.get("max_window_layers").and_then(Value::as_u64).unwrap_or(80);
    let null = fields.value.get("sliding_window").is_some_and(Value::is_null);
    if used && !null && from < layers as u64 {
        return Err(refuse(format!("use_sliding_window (from layer {from} of {layers})")));
    }
    Ok(())
}

fn parse_vision(fields: &Fields<'_>, text: &TextConfig) -> Result<VisionConfig, ModelError> {
    fields.only("model_type", &["qwen2_5_vl_vision", "qwen2_5_vl"])?;
    fields.only("hidden_act", &["silu"])?;
    let vision = VisionConfig {
        depth: fields.size("depth", Some(32))?,
        hidden_size: fields.size("hidden_size", Some(3584))?,
        intermediate_size: fields.size("intermediate_size", Some(3420))?,
        num_heads: fields.size("num_heads", Some(16))?,
        in_channels: fields.size("in_channels", Some(fields.size("in_chans", Some(3))?))?,
        patch_size: fields.size("patch_size", Some(14))?,
        spatial_merge_size: fields.size("spatial_merge_size", Some(2))?,
        temporal_patch_size: fields.size("temporal_patch_size", Some(2))?,
        tokens_per_second: fields.number("tokens_per_second", 4.0)?,
        window_size: fields.size("window_size", Some(112))?,
        out_hidden_size: fields.size("out_hidden_size", Some(3584))?,
        fullatt_block_indexes: match fields.get("fullatt_block_indexes") {
            Some(_) => fields.sizes("fullatt_block_indexes")?,
            None => vec![7, 15, 23, 31],
        },
        rope_theta: match fields.child("rope_parameters") {
            Some(rope) => {
                rope.only("rope_type", &["axial", "default"])?;
                rope.number("rope_theta", 10_000.0)?
            }
            None => 10_000.0,
        },
    };
    if vision.in_channels != 3 {
        return Err(refuse(format!("vision_config.in_channels {}", vision.in_channels)));
    }
    if vision.temporal_patch_size != 2 {
        return Err(refuse(format!("vision_config.temporal_patch_size {}", vision.temporal_patch_size)));
    }
    check_divides("vision_config.num_heads", vision.num_heads, "hidden_size", vision.hidden_size)?;
    check_divides("4 (two rotated axes)", 4, "the vision head's width", vision.head_dim())?;
    if vision.window_tokens() == 0 {
        return Err(ModelError::broken(
            FILE,
            format!("vision_config.window_size {} holds no token", vision.window_size),
        ));
    }
    if vision.out_hidden_size != text.hidden_size {
        let (out, hidden) = (vision.out_hidden_size, text.hidden_size);
        return Err(ModelError::broken(
            FILE,
            format!("vision_config.out_hidden_size {out} is not hidden_size {hidden}"),
        ));
    }
    Ok(vision)
}

fn check_divides(name: &str, divisor: usize, of: &str, value: usize) -> Result<(), ModelError> {
    if value.is_multiple_of(divisor) {
        return Ok(());
    }
    Err(ModelError::broken(FILE, format!("{name} ({divisor}) must divide {of} ({value})")))
}

fn refuse(what: impl Into<String>) -> ModelError {
    ModelError::unsupported(FILE, what)
}

/// The fields of one object, with its name for messages.
struct Fields<'a> {
    value: &'a Value,
    path: &'static str,
}

impl<'a> Fields<'a> {
    /// Null counts as absent, as in HF's dataclasses with optional fields.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.value.get(name).filter(|value| !value.is_null())
    }

    fn child(&self, name: &'static str) -> Option<Self> {
        self.get(name).filter(|value| value.is_object()).map(|value| Fields { value, path: name })
    }

    fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    fn wrong(&self, field: &str, wanted: &str) -> ModelError {
        let got = self.get(field).map_or_else(|| "nothing".to_owned(), Value::to_string);
        ModelError::broken(FILE, format!("{} must be {wanted}, not {got}", self.name(field)))
    }

    /// A whole number of at least 1.
    fn size(&self, field: &str, default: Option<usize>) -> Result<usize, ModelError> {
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (value, _) => value
                .and_then(Value::as_u64)
                // Sizes multiply; a limit keeps the products of hostile configs within usize.
                .filter(|&size| (1..=1 << 24).contains(&size))
                .map(|size| size as usize)
                .ok_or_else(|| self.wrong(field, "a whole number from 1 to 16777216")),
        }
    }

    fn sizes(&self, field: &str) -> Result<Vec<usize>, ModelError> {
        let list = self.get(field).and_then(Value::as_array);
        list.and_then(|list| {
            list.iter().map(|item| item.as_u64().and_then(|n| usize::try_from(n).ok())).collect()
        })
        .filter(|list: &Vec<usize>| list.iter().all(|&n| n < 1 << 24))
        .ok_or_else(|| self.wrong(field, "a list of whole numbers"))
    }

    fn number(&self, field: &str, default: f64) -> Result<f64, ModelError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|number| number.is_finite() && *number > 0.0)
                .ok_or_else(|| self.wrong(field, "a positive number")),
        }
    }

    fn id(&self, field: &str, default: u32) -> Result<u32, ModelError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| self.wrong(field, "a token id")),
        }
    }

    fn only(&self, field: &str, supported: &[&str]) -> Result<(), ModelError> {
        match self.get(field) {
            None => Ok(()),
            Some(value) => match value.as_str() {
                Some(text) if supported.contains(&text) => Ok(()),
                _ => {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    Err(refuse(format!("{} {value} (only {})", self.name(field), supported.join(" or "))))
                }
            },
        }
    }
}
