//! From an RGB image to the patches that the vision tower reads, as HF's Qwen2-VL image processor makes them: smart_resize,
//! Pillow's bicubic, rescale and normalise, then patches in merge-block order.
//!
//! Where a checkpoint has no `preprocessor_config.json`, the published Qwen2.5-VL one is assumed: 3136 to 12845056 pixels
//! and CLIP's mean and standard deviation.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use spectemp_engine::{PixelBudget, RgbImage, resize_bicubic, smart_resize};

use crate::ModelError;
use crate::config::VisionConfig;
use crate::files::ModelFiles;
use crate::rope::Grid;

const FILE: &str = "preprocessor_config.json";
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
const MIN_PIXELS: u32 = 56 * 56;
const MAX_PIXELS: u32 = 28 * 28 * 16_384;

/// How a checkpoint wants its images.
#[derive(Clone, Debug, PartialEq)]
pub struct Processor {
    /// Pixel bounds, and the multiple of sides.
    pub pixels: PixelBudget,
    /// For each channel, what each of the 256 values becomes.
    table: Arc<Table>,
    patch: usize,
    merge: usize,
}

type Table = [[f32; 256]; 3];

/// An image's patches, as bytes: a quarter of what the tower reads, which is made of them on its device.
#[derive(Clone, Debug)]
pub struct Patches {
    /// One temporal copy: `[patches, 3, patch * patch]`; the second is equal.
    bytes: Vec<u8>,
    table: Arc<Table>,
    /// Rows and columns of patches.
    pub grid: Grid,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    min_pixels: Option<u32>,
    max_pixels: Option<u32>,
    size: Option<RawSize>,
    patch_size: Option<usize>,
    merge_size: Option<usize>,
    temporal_patch_size: Option<usize>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    rescale_factor: Option<f64>,
    resample: Option<u32>,
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
}

/// `shortest_edge` and `longest_edge` hold pixel counts, whatever their names say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawSize {
    shortest_edge: Option<u32>,
    longest_edge: Option<u32>,
    min_pixels: Option<u32>,
    max_pixels: Option<u32>,
}

impl Processor {
    /// Reads `preprocessor_config.json`, or takes the defaults where it is absent.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for steps that are not done here, [`ModelError::Broken`] for a file that contradicts
    /// the vision config.
    pub fn open(files: &ModelFiles, vision: &VisionConfig) -> Result<Self, ModelError> {
        let raw = match files.read(FILE)? {
            Some(bytes) => parse(&bytes).map_err(|error| ModelError::broken(FILE, error))?,
            None => Raw::default(),
        };
        Self::new(&raw, vision)
    }

    fn new(raw: &Raw, vision: &VisionConfig) -> Result<Self, ModelError> {
        refuse_other_steps(raw)?;
        let same = [
            ("patch_size", raw.patch_size, vision.patch_size),
            ("merge_size", raw.merge_size, vision.spatial_merge_size),
            ("temporal_patch_size", raw.temporal_patch_size, vision.temporal_patch_size),
        ];
        if let Some((name, Some(got), wanted)) =
            same.into_iter().find(|(_, got, wanted)| got.is_some_and(|n| n != *wanted))
        {
            return Err(ModelError::broken(FILE, format!("{name} {got} is not config.json's {wanted}")));
        }
        let size = raw.size.as_ref();
        let edge = |f: fn(&RawSize) -> Option<u32>| size.and_then(f);
        let min_pixels =
            raw.min_pixels.or(edge(|s| s.shortest_edge)).or(edge(|s| s.min_pixels)).unwrap_or(MIN_PIXELS);
        let max_pixels =
            raw.max_pixels.or(edge(|s| s.longest_edge)).or(edge(|s| s.max_pixels)).unwrap_or(MAX_PIXELS);
        if min_pixels > max_pixels || max_pixels == 0 {
            return Err(ModelError::broken(
                FILE,
                format!("min_pixels {min_pixels} and max_pixels {max_pixels}"),
            ));
        }
        let multiple = (vision.patch_size * vision.spatial_merge_size) as u32;
        let (mean, std) = (raw.image_mean.unwrap_or(CLIP_MEAN), raw.image_std.unwrap_or(CLIP_STD));
        if std.iter().any(|value| *value == 0.0 || !value.is_finite()) {
            return Err(ModelError::broken(FILE, format!("image_std {std:?}")));
        }
        Ok(Self {
            pixels: PixelBudget { min_pixels, max_pixels, multiple },
            table: Arc::new(value_table(mean, std, raw.rescale_factor.unwrap_or(1.0 / 255.0))),
            patch: vision.patch_size,
            merge: vision.spatial_merge_size,
        })
    }

    /// The image scaled to the processor's own size. An image whose sides are multiples within the bounds stays as it is.
    ///
    /// # Errors
    /// [`ModelError::Image`] for an aspect ratio over 200 or an empty image.
    pub fn resize(&self, image: &RgbImage) -> Result<RgbImage, ModelError> {
        let (width, height) = smart_resize(image.width, image.height, self.pixels)?;
        Ok(resize_bicubic(image, width, height)?)
    }

    /// Patches of an image as it is, without scaling: the loop hands frames over at the size that the model is to see.
    ///
    /// # Errors
    /// [`ModelError::Prompt`] where a side is no multiple of the token's side or the buffer does not fit.
    pub fn patches(&self, image: &RgbImage) -> Result<Patches, ModelError> {
        let (width, height) = (image.width as usize, image.height as usize);
        let side = self.patch * self.merge;
        if width == 0 || height == 0 || !width.is_multiple_of(side) || !height.is_multiple_of(side) {
            return Err(ModelError::Prompt(format!(
                "image of {width}x{height} px has sides that are no multiples of {side}"
            )));
        }
        if image.data.len() != width * height * 3 {
            let bytes = image.data.len();
            return Err(ModelError::Prompt(format!("image of {width}x{height} px has {bytes} bytes")));
        }
        let grid = Grid { t: 1, h: height / self.patch, w: width / self.patch };
        let mut bytes = Vec::with_capacity(width * height * 3);
        for block_row in 0..grid.h / self.merge {
            for block_column in 0..grid.w / self.merge {
                for row in 0..self.merge {
                    for column in 0..self.merge {
                        let (top, left) = (block_row * self.merge + row, block_column * self.merge + column);
                        self.push_patch(image, top * self.patch, left * self.patch, &mut bytes);
                    }
                }
            }
        }
        Ok(Patches { bytes, table: Arc::clone(&self.table), grid })
    }

    /// Channel by channel, row by row.
    fn push_patch(&self, image: &RgbImage, top: usize, left: usize, out: &mut Vec<u8>) {
        let stride = image.width as usize * 3;
        for channel in 0..3 {
            for y in top..top + self.patch {
                let start = y * stride + left * 3;
                let row = &image.data[start..start + self.patch * 3];
                out.extend(row.iter().skip(channel).step_by(3));
            }
        }
    }
}

impl Patches {
    /// Several images' patches in one tensor `[patches, values]` of normalised values. Only bytes go to another device.
    ///
    /// # Errors
    /// Where the device fails, or there is no image.
    pub fn stack(images: &[Self], device: &Device) -> Result<Tensor, ModelError> {
        let count: usize = images.iter().map(|image| image.grid.patches()).sum();
        let bytes: usize = images.iter().map(|image| image.bytes.len()).sum();
        let width = bytes / count.max(1);
        if !device.is_cpu() {
            return Self::stack_there(images, (count, width), device);
        }
        let mut values = Vec::with_capacity(bytes);
        for Self { bytes, table, grid } in images {
            let area = bytes.len() / (3 * grid.patches()).max(1);
            for (number, plane) in bytes.chunks_exact(area.max(1)).enumerate() {
                values.extend(plane.iter().map(|&byte| table[number % 3][usize::from(byte)]));
            }
        }
        Ok(Tensor::from_vec(values, (count, width), device)?)
    }

    /// Looks the bytes up in the processor's table on the device, which gives the same bits as here.
    fn stack_there(
        images: &[Self],
        (count, width): (usize, usize),
        device: &Device,
    ) -> Result<Tensor, ModelError> {
        let Some(first) = images.first() else {
            return Err(ModelError::Prompt("patches of no image".to_owned()));
        };
        let bytes: Vec<u8> = images.iter().flat_map(|image| image.bytes.iter().copied()).collect();
        let bytes = Tensor::from_vec(bytes, (count, 3, width / 3), device)?;
        let channel = Tensor::new(&[0_u32, 256, 512], device)?.reshape((1, 3, 1))?;
        let places = bytes.to_dtype(DType::U32)?.broadcast_add(&channel)?.flatten_all()?;
        let table = Tensor::new(first.table.as_flattened(), device)?;
        Ok(table.index_select(&places, 0)?.reshape((count, width))?)
    }
}

/// By way of a map, because a list too would fill the fields in their order.
fn parse(bytes: &[u8]) -> serde_json::Result<Raw> {
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes)?;
    serde_json::from_value(map.into())
}

fn refuse_other_steps(raw: &Raw) -> Result<(), ModelError> {
    let steps =
        [("do_resize", raw.do_resize), ("do_rescale", raw.do_rescale), ("do_normalize", raw.do_normalize)];
    if let Some((name, _)) = steps.into_iter().find(|(_, value)| *value == Some(false)) {
        return Err(ModelError::unsupported(FILE, format!("{name} false")));
    }
    match raw.resample {
        // Pillow's number of bicubic.
        None | Some(3) => Ok(()),
        Some(other) => Err(ModelError::unsupported(FILE, format!("resample {other} (only 3, bicubic)"))),
    }
}

/// `(value * rescale - mean) / std`, in f32 and in the order of the reference.
fn value_table(mean: [f64; 3], std: [f64; 3], rescale: f64) -> Table {
    std::array::from_fn(|channel| {
        std::array::from_fn(|value| {
            let rescaled = (value as f64 * rescale) as f32;
            (rescaled - mean[channel] as f32) / std[channel] as f32
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_makes_the_same_of_bytes_as_the_processor_does() {
        let table = Arc::new(value_table(CLIP_MEAN, CLIP_STD, 1.0 / 255.0));
        let patches = |seed: usize, h: usize, w: usize| Patches {
            bytes: (0..h * w * 3 * 196).map(|at| ((at * 7919 + seed) / 8) as u8).collect(),
            table: Arc::clone(&table),
            grid: Grid { t: 1, h, w },
        };
        let images = [patches(1, 2, 4), patches(2, 4, 2)];
        let here = Patches::stack(&images, &Device::Cpu).unwrap();
        let there = Patches::stack_there(&images, (16, 588), &Device::Cpu).unwrap();
        assert_eq!(here.dims(), [16, 588]);
        assert_eq!(here.to_vec2::<f32>().unwrap(), there.to_vec2::<f32>().unwrap());
        assert!(Patches::stack_there(&[], (0, 0), &Device::Cpu).is_err());
    }
}
