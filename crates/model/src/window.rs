//! The order and the borders in which the vision tower sees patches: windows of a few tokens a side, so that most blocks
//! attend within a window only. Source: HF transformers, `vision_utils.get_vision_window_index`.

use crate::config::VisionConfig;
use crate::rope::Grid;

/// Order and borders for one call over several images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    /// Merged tokens in the order in which they are computed: `order[i]` is the token that stands at `i`.
    pub(crate) order: Vec<u32>,
    /// Borders of the windows, in patches.
    pub(crate) window_bounds: Vec<u32>,
    /// Borders of the time steps (whole images), in patches.
    pub(crate) image_bounds: Vec<u32>,
    /// Row and column of each patch, in the order computed.
    pub(crate) places: Vec<(u32, u32)>,
}

impl Windows {
    /// For these grids, in order.
    pub(crate) fn new(grids: &[Grid], config: &VisionConfig) -> Self {
        let mut windows =
            Self { order: vec![], window_bounds: vec![0], image_bounds: vec![0], places: vec![] };
        let mut first_token = 0;
        for grid in grids {
            for _ in 0..grid.t {
                first_token += windows.push_step(*grid, first_token, config);
            }
        }
        windows
    }

    /// Puts back what was computed in this order: `inverse[token]` is where it stands.
    pub(crate) fn inverse(&self) -> Vec<u32> {
        let mut inverse = vec![0; self.order.len()];
        for (at, &token) in (0..).zip(&self.order) {
            inverse[token as usize] = at;
        }
        inverse
    }

    /// One time step: its windows from the top left, its tokens within a window row by row. Gives its tokens.
    fn push_step(&mut self, grid: Grid, first_token: usize, config: &VisionConfig) -> usize {
        let (merge, side) = (config.spatial_merge_size, config.window_tokens());
        let (rows, columns) = (grid.h / merge, grid.w / merge);
        for top in (0..rows).step_by(side) {
            for left in (0..columns).step_by(side) {
                for row in top..rows.min(top + side) {
                    for column in left..columns.min(left + side) {
                        self.order.push((first_token + row * columns + column) as u32);
                        self.push_places(row, column, merge);
                    }
                }
                self.window_bounds.push(self.places.len() as u32);
            }
        }
        self.image_bounds.push(self.places.len() as u32);
        rows * columns
    }

    /// The patches of one token lie next to each other, row by row.
    fn push_places(&mut self, row: usize, column: usize, merge: usize) {
        for y in 0..merge {
            for x in 0..merge {
                self.places.push(((row * merge + y) as u32, (column * merge + x) as u32));
            }
        }
    }
}
