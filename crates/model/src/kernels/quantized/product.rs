//! `x · Wᵀ + bias` with weights in blocks, packed once in panels of 32 outputs.
//!
//! Stacked weights keep a type each, so that a file's layers of mixed types are used as they are. Work is cut into groups
//! of panels times blocks of tiles; within a task 512 terms of a panel stay in the L1 cache for all of the block's rows.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::{Error, Result, bail};

use super::super::Threads;
use super::super::buffer::{Buffer, Target, filled};
use super::super::tile::{PANEL, Sums, at_edge};
use super::activations::{WORDS, pack};
use super::tile::{ROWS, Tile};
use super::{BLOCK, BlockType};

/// Blocks of 32 terms in a piece; a multiple of 8, the blocks of `q4_K` being of 256.
const DEPTH_BLOCKS: usize = 16;
/// Tiles of rows in a block: as many activations as stay in the L2 cache.
const TILE_BLOCK: usize = 24;
/// Bytes of weights in a task.
const TASK_BYTES: usize = 256 << 10;

/// Stacked weights in blocks.
#[derive(Debug)]
pub(in crate::kernels) struct Quantized {
    pub(in crate::kernels) inputs: usize,
    pub(in crate::kernels) outputs: usize,
    parts: Vec<Packed>,
}

/// What one of the stacked weights is.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct PartShape {
    pub(in crate::kernels) kind: BlockType,
    pub(in crate::kernels) outputs: usize,
}

/// Gives the blocks of some rows of a weight, one row after the other.
pub(in crate::kernels) type RowBlocks<'a> = &'a (dyn Fn(Range<usize>) -> Result<Vec<u8>> + Sync);

#[derive(Debug)]
struct Packed {
    kind: BlockType,
    /// The first of its outputs among all.
    first: usize,
    outputs: usize,
    panel_bytes: usize,
    panels: Buffer<u8>,
    /// One per output, padded to whole panels; zeros where there is none.
    bias: Buffer<f32>,
}

impl Quantized {
    /// Weights of zeros.
    ///
    /// # Errors
    /// Where rows of `inputs` weights are no whole blocks.
    pub(in crate::kernels) fn zeros(inputs: usize, parts: &[PartShape]) -> Result<Self> {
        let (mut outputs, mut packed) = (0, Vec::with_capacity(parts.len()));
        for part in parts {
            if !inputs.is_multiple_of(part.kind.weights()) {
                bail!("rows of {inputs} weights are no whole blocks of {}", part.kind.weights());
            }
            let panels = part.outputs.div_ceil(PANEL);
            let panel_bytes = inputs / part.kind.weights() * part.kind.panel_bytes();
            packed.push(Packed {
                kind: part.kind,
                first: outputs,
                outputs: part.outputs,
                panel_bytes,
                panels: Buffer::zeros(panels * panel_bytes),
                bias: Buffer::zeros(panels * PANEL),
            });
            outputs += part.outputs;
        }
        Ok(Self { inputs, outputs, parts: packed })
    }

    /// Sets all rows of a part; `blocks` is asked for a panel's rows at a time, on any thread.
    ///
    /// # Errors
    /// What `blocks` fails with, or rows of another length.
    pub(in crate::kernels) fn fill(
        &mut self,
        threads: &Threads,
        part: usize,
        blocks: RowBlocks<'_>,
    ) -> Result<()> {
        let part = &mut self.parts[part];
        let (kind, outputs) = (part.kind, part.outputs);
        let row_bytes = self.inputs / kind.weights() * kind.bytes();
        let failed = Mutex::new(None);
        let mut panels: Vec<&mut [u8]> = part.panels.chunks_exact_mut(part.panel_bytes.max(1)).collect();
        threads.for_each(&mut panels, &|index, panel| {
            let rows = index * PANEL..outputs.min((index + 1) * PANEL);
            let set = |bytes: Vec<u8>| {
                if bytes.len() != rows.len() * row_bytes {
                    bail!("{} bytes for {} rows of {row_bytes}", bytes.len(), rows.len());
                }
                for (column, row) in bytes.chunks_exact(row_bytes).enumerate() {
                    kind.set_column(panel, column, row);
                }
                Ok(())
            };
            if let Err(error) = blocks(rows.clone()).and_then(set) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err::<(), Error>)
    }

    /// Sets a part's bias.
    pub(in crate::kernels) fn set_bias(&mut self, part: usize, values: &[f32]) {
        self.parts[part].bias[..values.len()].copy_from_slice(values);
    }

    /// Row `index` of the stacked weights as numbers.
    pub(in crate::kernels) fn row(&self, index: usize, row: &mut [f32]) {
        let Some(part) = self.parts.iter().rfind(|part| part.first <= index) else { return };
        let output = index - part.first;
        let panel = &part.panels[output / PANEL * part.panel_bytes..][..part.panel_bytes];
        part.kind.column(panel, output % PANEL, row);
    }

    /// Bytes of the packed weights.
    pub(in crate::kernels) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.panels.len() + part.bias.len() * size_of::<f32>()).sum()
    }

    /// `[rows][inputs]` becomes `[rows][outputs]`.
    #[expect(unsafe_code, reason = "the result is written by tiles")]
    pub(in crate::kernels) fn product(&self, threads: &Threads, x: &[f32]) -> Vec<f32> {
        let rows = x.len().checked_div(self.inputs).unwrap_or(0);
        // SAFETY: the tasks write every row of every panel.
        unsafe { filled(rows * self.outputs, |out| self.run(threads, x, rows, out)) }
    }

    fn run(&self, threads: &Threads, x: &[f32], rows: usize, out: Target<'_>) {
        if rows == 0 {
            return;
        }
        let tiles = rows.div_ceil(ROWS);
        // Tiles and blocks of equal size: eight rows as four and four, and threads end together.
        let tile_rows = rows.div_ceil(tiles);
        let tiles = rows.div_ceil(tile_rows);
        let blocks = tiles.div_ceil(TILE_BLOCK);
        let tile_block = tiles.div_ceil(blocks);
        let a = pack(threads, x, self.inputs, tile_rows);
        let groups: Vec<Group<'_>> =
            self.parts.iter().flat_map(|part| part.groups(threads.count())).collect();
        let call = Call { a: &a, inputs: self.inputs, outputs: self.outputs, rows, tile_rows, out };
        threads.run(blocks * groups.len(), &|task| {
            let (block, group) = (task / groups.len(), &groups[task % groups.len()]);
            call.group(group, block * tile_block..((block + 1) * tile_block).min(tiles));
        });
    }
}

impl Packed {
    /// The panels in tasks, several for each thread.
    fn groups(&self, threads: usize) -> impl Iterator<Item = Group<'_>> {
        let panels = self.outputs.div_ceil(PANEL);
        let size = (TASK_BYTES / self.panel_bytes.max(1)).min(panels / (4 * threads)).max(1);
        (0..panels)
            .step_by(size)
            .map(move |first| Group { part: self, panels: first..panels.min(first + size) })
    }
}

/// Some panels of a part.
struct Group<'a> {
    part: &'a Packed,
    panels: Range<usize>,
}

/// What all tasks of a product share.
struct Call<'a> {
    /// Packed activations.
    a: &'a [i32],
    inputs: usize,
    outputs: usize,
    rows: usize,
    /// Rows of a tile; the last may have fewer.
    tile_rows: usize,
    out: Target<'a>,
}

impl Call<'_> {
    fn group(&self, group: &Group<'_>, tiles: Range<usize>) {
        let blocks = self.inputs / BLOCK;
        // Where there is one tile, nothing of a panel is read twice.
        let step = if tiles.len() == 1 { blocks.max(1) } else { DEPTH_BLOCKS };
        for first in (0..blocks).step_by(step) {
            for panel in group.panels.clone() {
                for tile in tiles.clone() {
                    self.piece(group.part, panel, tile * self.tile_rows, first..blocks.min(first + step));
                }
            }
        }
    }

    /// Some terms of one tile of rows, from `first_row` on, and one panel.
    #[expect(unsafe_code, reason = "tiles are addressed by pointers")]
    fn piece(&self, part: &Packed, panel: usize, first_row: usize, blocks: Range<usize>) {
        let rows = self.tile_rows.min(self.rows - first_row);
        let column = panel * PANEL;
        let columns = PANEL.min(part.outputs - column);
        let to = self.out.address(first_row * self.outputs + part.first + column);
        let begins = blocks.start == 0;
        let (init, init_stride) =
            if begins { (part.bias[column..].as_ptr(), 0) } else { (to.cast_const(), self.outputs) };
        let sums = Sums { init, init_stride, out: to, out_stride: self.outputs };
        let a = &self.a[(first_row * (self.inputs / BLOCK) + blocks.start * rows) * WORDS..];
        let b = &part.panels[panel * part.panel_bytes..][..part.panel_bytes];
        let b = &b[blocks.start * BLOCK / part.kind.weights() * part.kind.panel_bytes()..];
        let tile = Tile {
            blocks: blocks.len(),
            rows,
            a: a[..blocks.len() * rows * WORDS].as_ptr(),
            b: b[..blocks.len() * BLOCK / part.kind.weights() * part.kind.panel_bytes()].as_ptr(),
            kind: part.kind,
            sums,
        };
        // SAFETY: `a` and `b` were cut to size, the bias is whole panels, and out has these rows and columns, which no
        // other task's panel and rows share; after the first piece they have been written.
        unsafe {
            if columns == PANEL {
                tile.compute();
            } else {
                at_edge(sums, (rows, columns), begins, |sums| Tile { sums, ..tile }.compute());
            }
        }
    }
}
