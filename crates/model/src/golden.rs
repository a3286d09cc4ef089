//! A golden file: what the reference implementation computed for one prompt, stage by stage, in a safetensors file.
//! Keys: `input_ids`, `position_ids`, `grid_thw`, `patches_t0` or `pixel_values` or `pixel_values_videos`, `vision_embeds`,
//! `hidden_first`, `hidden_last`, `logits`, `generated` and some more; all but the ids may be absent.

use std::path::Path;

use candle_core::{Device, Tensor};

use crate::ModelError;
use crate::rope::{Grid, Position};
use crate::safetensors::SafeTensors;

/// One file.
#[derive(Debug)]
pub(crate) struct Golden {
    file: SafeTensors,
}

impl Golden {
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        Ok(Self { file: SafeTensors::open_path(path)? })
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.file.entry(key).is_some()
    }

    /// Prefixes of `NAME.position_ids`, in files that hold the positions of several others under another rule.
    pub(crate) fn position_cases(&self) -> Vec<String> {
        let mut cases: Vec<String> = self
            .file
            .names()
            .filter_map(|name| name.strip_suffix(".position_ids"))
            .map(str::to_owned)
            .collect();
        cases.sort_unstable();
        cases
    }

    /// A float tensor's values, none where it is absent.
    pub(crate) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, ModelError> {
        if !self.has(key) {
            return Ok(None);
        }
        let mut out = Vec::new();
        self.file.append_f32(key, &mut out)?;
        Ok(Some(out))
    }

    pub(crate) fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, ModelError> {
        if self.has(key) { self.file.integers(key).map(Some) } else { Ok(None) }
    }

    /// Token ids of the prompt or the output.
    pub(crate) fn ids(&self, key: &str) -> Result<Option<Vec<u32>>, ModelError> {
        let Some(ids) = self.integers(key)? else { return Ok(None) };
        let ids: Option<Vec<u32>> = ids.into_iter().map(|id| u32::try_from(id).ok()).collect();
        ids.map(Some).ok_or_else(|| ModelError::tensor(key, "holds negative ids"))
    }

    /// Positions of the tokens: `[3, 1, tokens]` in the file.
    pub(crate) fn positions(&self, key: &str) -> Result<Option<Vec<Position>>, ModelError> {
        let Some(values) = self.ids(key)? else { return Ok(None) };
        if values.len() % 3 != 0 {
            return Err(ModelError::tensor(key, format!("{} values are not three rows", values.len())));
        }
        let tokens = values.len() / 3;
        Ok(Some((0..tokens).map(|i| [values[i], values[tokens + i], values[2 * tokens + i]]).collect()))
    }

    /// Grids of the images or videos, none for text.
    pub(crate) fn grids(&self) -> Result<Vec<Grid>, ModelError> {
        let keys = ["grid_thw", "image_grid_thw", "video_grid_thw"];
        let Some(key) = keys.into_iter().find(|key| self.has(key)) else { return Ok(Vec::new()) };
        let sides = self.ids(key)?.unwrap_or_default();
        if sides.len() % 3 != 0 || sides.iter().any(|&side| side == 0 || side > 1 << 20) {
            return Err(ModelError::tensor(key, format!("{sides:?} are no grids")));
        }
        let grid = |side: &[u32]| Grid { t: side[0] as usize, h: side[1] as usize, w: side[2] as usize };
        Ok(sides.chunks_exact(3).map(grid).collect())
    }

    /// Patches as the tower reads them, none where the file has no pixels.
    pub(crate) fn patches(&self, device: &Device) -> Result<Option<Tensor>, ModelError> {
        let keys = ["patches_t0", "pixel_values", "pixel_values_videos"];
        let Some(key) = keys.into_iter().find(|key| self.has(key)) else { return Ok(None) };
        self.matrix(key, device)
    }

    /// A two-dimensional float tensor.
    pub(crate) fn matrix(&self, key: &str, device: &Device) -> Result<Option<Tensor>, ModelError> {
        let Some(values) = self.floats(key)? else { return Ok(None) };
        let columns = self.file.entry(key).and_then(|entry| entry.shape.last().copied()).unwrap_or(1);
        if columns == 0 || values.is_empty() {
            return Err(ModelError::tensor(key, "is empty"));
        }
        Ok(Some(Tensor::from_vec(values.clone(), (values.len() / columns, columns), device)?))
    }
}
