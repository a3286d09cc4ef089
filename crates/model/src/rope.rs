//! Rotary positions with three axes (M-RoPE): text moves along all three together; the tokens of an image share a time
//! and differ in height and width; those of a video also move in time, by seconds.
//!
//! Two rules are in use for where the text goes on after a video, see [`PositionRule`]. For images they agree.

use candle_core::{DType, Device, Tensor};

use crate::ModelError;
use crate::config::TextConfig;
use crate::kernels::Rotary;

/// Patches of an image or video: time steps, rows and columns (before merging).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Time steps; 1 for an image.
    pub t: usize,
    /// Rows of patches.
    pub h: usize,
    /// Columns of patches.
    pub w: usize,
}

impl Grid {
    /// All its patches.
    pub fn patches(self) -> usize {
        self.t * self.h * self.w
    }
}

/// Which transformers generation's video positions to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PositionRule {
    /// Up to transformers 4.57, which the checkpoints were published with: whole seconds per grid step (the fraction is
    /// cut off), and text goes on after the largest position of the video.
    #[default]
    Published,
    /// transformers 5.x: fractions count, and text goes on after the video's larger side, whatever its length in time.
    Transformers5,
}

/// One image or video of a prompt, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VisualSpan {
    /// Its patches.
    pub grid: Grid,
    /// Seconds per time step; none for an image.
    pub seconds_per_step: Option<f32>,
}

/// Time, height, width of one token.
pub type Position = [u32; 3];

/// What positions depend on besides the prompt.
#[derive(Clone, Copy, Debug)]
pub struct PositionSettings {
    /// Which rule.
    pub rule: PositionRule,
    /// Patches per side that become one token.
    pub merge: usize,
    /// Time positions per second.
    pub tokens_per_second: f64,
}

/// Positions of a prompt. `visual` tells for each token whether it stands for a piece of an image or video; each run of
/// those belongs to the next span. The token after the prompt has position [`next_position`] on all axes.
///
/// # Errors
/// [`ModelError::Prompt`] where pads and spans do not match.
pub fn positions(
    visual: &[bool],
    spans: &[VisualSpan],
    settings: PositionSettings,
) -> Result<Vec<Position>, ModelError> {
    let mut out: Vec<Position> = Vec::with_capacity(visual.len());
    let mut spans = spans.iter();
    let mut next = 0;
    while out.len() < visual.len() {
        if !visual[out.len()] {
            out.push([next; 3]);
            next += 1;
            continue;
        }
        let span =
            spans.next().ok_or_else(|| ModelError::Prompt("more image tokens than images".to_owned()))?;
        let start = out.len();
        next = push_visual(&mut out, next, *span, settings);
        let inside = visual.get(start..out.len()).is_some_and(|pads| pads.iter().all(|&pad| pad));
        if !inside {
            return Err(ModelError::Prompt(format!("fewer image tokens than the {:?} needs", span.grid)));
        }
    }
    if spans.next().is_some() {
        return Err(ModelError::Prompt("more images than image tokens".to_owned()));
    }
    Ok(out)
}

/// Appends one span's positions and gives where the text goes on.
fn push_visual(out: &mut Vec<Position>, start: u32, span: VisualSpan, settings: PositionSettings) -> u32 {
    let Grid { t, h, w } = span.grid;
    let (rows, columns) = (h / settings.merge, w / settings.merge);
    let mut largest = start;
    for step in 0..t {
        let time = start + span.seconds_per_step.map_or(0, |seconds| video_time(step, seconds, settings));
        for row in 0..rows as u32 {
            for column in 0..columns as u32 {
                let position = [time, start + row, start + column];
                largest = position.into_iter().fold(largest, u32::max);
                out.push(position);
            }
        }
    }
    match (settings.rule, span.seconds_per_step) {
        (PositionRule::Transformers5, Some(_)) => start + rows.max(columns) as u32,
        _ => largest + 1,
    }
}

/// The time axis of a video, counted from its start; the order of the products is that of the sources, in f32.
fn video_time(step: usize, seconds: f32, settings: PositionSettings) -> u32 {
    let per_second = settings.tokens_per_second as f32;
    match settings.rule {
        PositionRule::Published => (step as f32 * seconds.trunc() * per_second) as u32,
        PositionRule::Transformers5 => (step as f32 * (per_second * seconds)) as u32,
    }
}

/// The position after all of these.
pub fn next_position(positions: &[Position]) -> u32 {
    positions.iter().flatten().max().map_or(0, |largest| largest + 1)
}

/// Cosines and sines for the language model: each frequency takes its angle from the axis of its section.
/// Source: HF transformers, `Qwen2_5_VLRotaryEmbedding`.
#[derive(Clone, Debug)]
pub struct TextRotary {
    /// `[head_dim / 2]`
    frequencies: Vec<f32>,
    /// Which axis each frequency takes: 0 time, 1 height, 2 width.
    axes: Vec<usize>,
    device: Device,
}

impl TextRotary {
    /// Frequencies of a config.
    pub fn new(config: &TextConfig, device: &Device) -> Self {
        let sections = config.mrope_section.iter().enumerate();
        let axes = sections.flat_map(|(number, &width)| std::iter::repeat_n(number % 3, width)).collect();
        Self { frequencies: frequencies(config.rope_theta, config.head_dim()), axes, device: device.clone() }
    }

    /// Tables for these tokens.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn at(&self, positions: &[Position]) -> Result<Rotary, ModelError> {
        let angles = positions.iter().flat_map(|position| {
            self.frequencies
                .iter()
                .zip(&self.axes)
                .map(|(frequency, &axis)| position[axis] as f32 * frequency)
        });
        rotary(angles, positions.len(), self.frequencies.len(), &self.device)
    }
}

/// Cosines and sines for the vision tower: the first half of the frequencies turns with the row, the second with the column.
///
/// # Errors
/// Where the device fails.
pub fn vision_rotary(
    places: &[(u32, u32)],
    theta: f64,
    head_dim: usize,
    device: &Device,
) -> Result<Rotary, ModelError> {
    let frequencies = frequencies(theta, head_dim / 2);
    let angles = places.iter().flat_map(|&(row, column)| {
        let of = |place: u32| frequencies.iter().map(move |frequency| place as f32 * frequency);
        of(row).chain(of(column))
    });
    rotary(angles, places.len(), head_dim / 2, device)
}

/// `1 / theta^(2i / width)`, in f32 as the sources compute it: at large positions the rounding of a frequency is seen.
fn frequencies(theta: f64, width: usize) -> Vec<f32> {
    (0..width).step_by(2).map(|i| 1.0 / (theta as f32).powf(i as f32 / width as f32)).collect()
}

fn rotary(
    angles: impl Iterator<Item = f32>,
    tokens: usize,
    half: usize,
    device: &Device,
) -> Result<Rotary, ModelError> {
    let (mut cos, mut sin) = (Vec::with_capacity(tokens * half), Vec::with_capacity(tokens * half));
    for angle in angles {
        let (s, c) = angle.sin_cos();
        cos.push(c);
        sin.push(s);
    }
    let table = |values: Vec<f32>| Tensor::from_vec(values, (tokens, half), device)?.to_dtype(DType::F32);
    Ok(Rotary { cos: table(cos)?, sin: table(sin)? })
}
