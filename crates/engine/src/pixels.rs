//! Images and the two pieces of pixel arithmetic that a video and a model must agree on: the size that Qwen2.5-VL's
//! processor chooses ([`smart_resize`]) and Pillow's antialiased bicubic ([`resize_bicubic`]).

use std::sync::Arc;

use crate::resample::bicubic;

/// 8 bit RGB, rows from the top, no padding: `data.len() == width * height * 3`.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The samples; shared, because frames stay in the context.
    pub data: Arc<[u8]>,
}

impl std::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage({}x{})", self.width, self.height)
    }
}

/// How many pixels an image may have, and which sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelBudget {
    /// Fewest pixels; smaller images are scaled up.
    pub min_pixels: u32,
    /// Most pixels.
    pub max_pixels: u32,
    /// Both sides are multiples of it (28 for Qwen2.5-VL: patch 14 × merge 2).
    pub multiple: u32,
}

/// Why an image cannot be sized.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PixelError {
    /// Qwen2.5-VL refuses it.
    #[error("image of {width}x{height} px has an aspect ratio over 200")]
    Aspect {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// A side is 0 or the buffer does not fit the size.
    #[error("image of {width}x{height} px with {bytes} bytes cannot be scaled to {to_width}x{to_height}")]
    Size {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// Its buffer.
        bytes: usize,
        /// The wanted width.
        to_width: u32,
        /// The wanted height.
        to_height: u32,
    },
}

/// The size (width, height) that Qwen2-VL's `smart_resize` chooses: multiples of `multiple`, the aspect kept as far
/// as that allows, the product within the budget.
/// Source: HF transformers, `models/qwen2_vl/image_processing_qwen2_vl.py`.
///
/// # Errors
/// [`PixelError::Aspect`] for a ratio over 200.
pub fn smart_resize(width: u32, height: u32, budget: PixelBudget) -> Result<(u32, u32), PixelError> {
    let (w, h, factor) = (f64::from(width), f64::from(height), f64::from(budget.multiple));
    if w.max(h) / w.min(h) > 200.0 {
        return Err(PixelError::Aspect { width, height });
    }
    // Python's round is half to even.
    let mut to_h = (h / factor).round_ties_even() * factor;
    let mut to_w = (w / factor).round_ties_even() * factor;
    if to_h * to_w > f64::from(budget.max_pixels) {
        let beta = (h * w / f64::from(budget.max_pixels)).sqrt();
        to_h = factor.max((h / beta / factor).floor() * factor);
        to_w = factor.max((w / beta / factor).floor() * factor);
    } else if to_h * to_w < f64::from(budget.min_pixels) {
        let beta = (f64::from(budget.min_pixels) / (h * w)).sqrt();
        to_h = (h * beta / factor).ceil() * factor;
        to_w = (w * beta / factor).ceil() * factor;
    }
    // A side that was rounded to nothing makes the product fall below any budget; only one of 0 lets it pass.
    Ok((to_w.max(factor) as u32, to_h.max(factor) as u32))
}

/// Pillow's `Image.resize(size, BICUBIC)`: Catmull-Rom with antialiasing, in two 8 bit passes, bit for bit.
///
/// # Errors
/// [`PixelError::Size`] for an empty side or a buffer of the wrong length.
pub fn resize_bicubic(image: &RgbImage, width: u32, height: u32) -> Result<RgbImage, PixelError> {
    if (image.width, image.height) == (width, height) {
        return Ok(image.clone());
    }
    let fail = || PixelError::Size {
        width: image.width,
        height: image.height,
        bytes: image.data.len(),
        to_width: width,
        to_height: height,
    };
    let (from, to) = ((image.width as usize, image.height as usize), (width as usize, height as usize));
    if [from.0, from.1, to.0, to.1].contains(&0) || image.data.len() != from.0 * from.1 * 3 {
        return Err(fail());
    }
    let samples = bicubic(&image.data, from, to);
    Ok(RgbImage { width, height, data: samples.into() })
}
