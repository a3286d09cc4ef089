//! The vision tower: patches of several images in one call, in window order; most blocks attend within windows, a few to
//! the whole image; then two by two patches become one token of the language model.
//!
//! Source: HF transformers, `Qwen2_5_VisionTransformerPretrainedModel`
//! <https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/qwen2_5_vl/modeling_qwen2_5_vl.py>.

use candle_core::{DType, Device, Tensor};

use crate::ModelError;
use crate::config::VisionConfig;
use crate::kernels::{
    Heads, Linear, Part, Rotary, Threads, add_rms_norm, gelu, rms_norm, segment_attention, silu_mul,
};
use crate::loader::Loader;
use crate::rope::{Grid, vision_rotary};
use crate::window::Windows;

/// The tower's norms have a fixed epsilon.
const EPS: f64 = 1e-6;

/// Rows that go through an MLP at a time; bounds its memory for large images.
const MLP_ROWS: usize = 4096;

/// The tower.
#[derive(Debug)]
pub struct VisionTower {
    config: VisionConfig,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    merger: Merger,
    device: Device,
    dtype: DType,
    threads: Threads,
}

impl VisionTower {
    pub(crate) fn load(config: &VisionConfig, loader: &Loader<'_>) -> Result<Self, ModelError> {
        let blocks =
            (0..config.depth).map(|number| Block::load(config, number, loader)).collect::<Result<_, _>>()?;
        Ok(Self {
            config: config.clone(),
            patch_embed: PatchEmbed::load(config, loader)?,
            blocks,
            merger: Merger::load(config, loader)?,
            device: loader.device.clone(),
            dtype: loader.vector_dtype(),
            threads: loader.threads.clone(),
        })
    }

    /// `patches` (`[patches, values]`, f32, rows in merge-block order, image after image) becomes
    /// `[tokens, out_hidden]`. A row has one temporal copy (an image shows the same frame twice) or two (a video).
    ///
    /// # Errors
    /// [`ModelError::Prompt`] where patches and grids do not match.
    pub fn forward(&self, patches: &Tensor, grids: &[Grid]) -> Result<Tensor, ModelError> {
        let windows = self.windows(grids)?;
        let blocks = self.blocks(patches, &windows)?;
        self.merge(&blocks, &windows)
    }

    /// Order and borders for these grids.
    pub(crate) fn windows(&self, grids: &[Grid]) -> Result<Windows, ModelError> {
        let merge = self.config.spatial_merge_size;
        match grids.iter().find(|grid| {
            grid.patches() == 0 || ![grid.h, grid.w].iter().all(|side| side.is_multiple_of(merge))
        }) {
            Some(grid) => Err(ModelError::Prompt(format!("{grid:?} does not divide by {merge}"))),
            None => Ok(Windows::new(grids, &self.config)),
        }
    }

    /// The output of the last block, `[patches, hidden]`, in window order.
    pub(crate) fn blocks(&self, patches: &Tensor, windows: &Windows) -> Result<Tensor, ModelError> {
        let (count, values) = patches.dims2()?;
        if count != windows.places.len() {
            return Err(ModelError::Prompt(format!("{count} patches for grids of {}", windows.places.len())));
        }
        let unit = self.config.merge_unit();
        let order = Tensor::new(windows.order.as_slice(), &self.device)?;
        let patches = patches.to_device(&self.device)?.to_dtype(self.dtype)?;
        let patches = patches.reshape((count / unit, unit * values))?.index_select(&order, 0)?;
        let x = self.patch_embed.forward(&patches.reshape((count, values))?)?; // [patches, hidden]
        let rotary =
            vision_rotary(&windows.places, self.config.rope_theta, self.config.head_dim(), &self.device)?;
        self.run_blocks(x, &rotary, windows)
    }

    fn run_blocks(&self, mut x: Tensor, rotary: &Rotary, windows: &Windows) -> Result<Tensor, ModelError> {
        let heads =
            Heads { query: self.config.num_heads, kv: self.config.num_heads, dim: self.config.head_dim() };
        let threads = &self.threads;
        let Some(first) = self.blocks.first() else { return Ok(x) };
        let mut normed = rms_norm(threads, &x, &first.norm1, EPS)?;
        for (number, block) in self.blocks.iter().enumerate() {
            let whole = self.config.fullatt_block_indexes.contains(&number);
            let bounds = if whole { &windows.image_bounds } else { &windows.window_bounds };
            let qkv = block.qkv.forward(&normed)?; // [patches, 3 * hidden]
            let attended = block.proj.forward(&segment_attention(threads, &qkv, rotary, &heads, bounds)?)?;
            let (sum, inner) = add_rms_norm(threads, &attended, &x, &block.norm2, EPS)?;
            let mlp = block.mlp(threads, &inner)?;
            match self.blocks.get(number + 1) {
                Some(following) => (x, normed) = add_rms_norm(threads, &mlp, &sum, &following.norm1, EPS)?,
                None => x = (mlp + sum)?,
            }
        }
        Ok(x)
    }

    /// Two by two patches become a token; back in the order of the images. `[tokens, out_hidden]`
    pub(crate) fn merge(&self, blocks: &Tensor, windows: &Windows) -> Result<Tensor, ModelError> {
        let merged = self.merger.forward(&self.threads, blocks, self.config.merge_unit())?;
        let inverse = Tensor::new(windows.inverse().as_slice(), &self.device)?;
        Ok(merged.index_select(&inverse, 0)?)
    }
}

/// A convolution whose kernel is its stride, hence a product. Its kernel has a half per temporal copy; an image's copies
/// are equal, so that the sum of the halves does their work in one.
#[derive(Debug)]
struct PatchEmbed {
    image: Linear,
    video: Linear,
}

impl PatchEmbed {
    fn load(config: &VisionConfig, loader: &Loader<'_>) -> Result<Self, ModelError> {
        let (hidden, side) = (config.hidden_size, config.patch_size);
        let shape = [hidden, config.in_channels, config.temporal_patch_size, side, side];
        let kernel = loader.weights.values("visual.patch_embed.proj.weight", &shape)?;
        let kernel = Tensor::from_vec(kernel, &shape, &Device::Cpu)?;
        let linear = |weight: Tensor| -> Result<Linear, ModelError> {
            let dtype = loader.types.plain.unwrap_or(DType::F32);
            let weight = weight.flatten_from(1)?.contiguous()?.to_device(loader.device)?.to_dtype(dtype)?;
            Ok(Linear::new(loader.threads, &[Part { weight: &weight, bias: None }])?)
        };
        Ok(Self { image: linear(kernel.sum(2)?)?, video: linear(kernel)? })
    }

    fn forward(&self, patches: &Tensor) -> Result<Tensor, ModelError> {
        let values = patches.dim(1)?;
        match [&self.image, &self.video].into_iter().find(|linear| linear.in_features() == values) {
            Some(linear) => Ok(linear.forward(patches)?),
            None => {
                Err(ModelError::Prompt(format!("patches of {values} values do not fit the vision tower")))
            }
        }
    }
}

#[derive(Debug)]
struct Block {
    norm1: Tensor,
    qkv: Linear,
    proj: Linear,
    norm2: Tensor,
    gate_up_proj: Linear,
    down_proj: Linear,
}

impl Block {
    fn load(config: &VisionConfig, number: usize, loader: &Loader<'_>) -> Result<Self, ModelError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("visual.blocks.{number}.{part}");
        Ok(Self {
            norm1: loader.norm(&name("norm1"), hidden)?,
            qkv: loader.linear(&[(name("attn.qkv"), 3 * hidden)], hidden, true)?,
            proj: loader.linear(&[(name("attn.proj"), hidden)], hidden, true)?,
            norm2: loader.norm(&name("norm2"), hidden)?,
            gate_up_proj: loader.linear(
                &[(name("mlp.gate_proj"), inner), (name("mlp.up_proj"), inner)],
                hidden,
                true,
            )?,
            down_proj: loader.linear(&[(name("mlp.down_proj"), hidden)], inner, true)?,
        })
    }

    fn mlp(&self, threads: &Threads, x: &Tensor) -> Result<Tensor, ModelError> {
        let rows = x.dim(0)?;
        let mut pieces = Vec::with_capacity(rows.div_ceil(MLP_ROWS));
        for start in (0..rows).step_by(MLP_ROWS) {
            let piece = x.narrow(0, start, MLP_ROWS.min(rows - start))?;
            let gate_up = self.gate_up_proj.forward(&piece)?; // [rows, 2 * intermediate]
            pieces.push(self.down_proj.forward(&silu_mul(threads, &gate_up)?)?);
        }
        if pieces.len() == 1
            && let Some(piece) = pieces.pop()
        {
            return Ok(piece);
        }
        Ok(Tensor::cat(&pieces, 0)?)
    }
}

#[derive(Debug)]
struct Merger {
    ln_q: Tensor,
    mlp_0: Linear,
    mlp_2: Linear,
}

impl Merger {
    fn load(config: &VisionConfig, loader: &Loader<'_>) -> Result<Self, ModelError> {
        let inner = config.hidden_size * config.merge_unit();
        let layer = |number: usize, out: usize| {
            loader.linear(&[(format!("visual.merger.mlp.{number}"), out)], inner, true)
        };
        Ok(Self {
            ln_q: loader.norm("visual.merger.ln_q", config.hidden_size)?,
            mlp_0: layer(0, inner)?,
            mlp_2: layer(2, config.out_hidden_size)?,
        })
    }

    fn forward(&self, threads: &Threads, x: &Tensor, unit: usize) -> Result<Tensor, ModelError> {
        let (patches, hidden) = x.dims2()?;
        let normed = rms_norm(threads, x, &self.ln_q, EPS)?;
        let inner = self.mlp_0.forward(&normed.reshape((patches / unit, unit * hidden))?)?;
        Ok(self.mlp_2.forward(&gelu(threads, &inner)?)?)
    }
}
