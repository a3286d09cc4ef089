//! `x · Wᵀ + bias` with a weight that is packed once: panels of 32 outputs, `[panel][in][32]`.
//!
//! A row (decode) reads the packed weight once, front to back. Many rows (prefill, vision) are packed in tiles of 12,
//! `[tile][in][12]`, and worked through in blocks: 256 of the sum's terms, of which a panel's weights stay in the L1
//! cache and the rows' in L2.

use super::Threads;
use super::buffer::{Buffer, Target, filled};
use super::tile::{PANEL, Panel, ROWS, Tile};

/// Terms of the sum in a block: 32 KiB of a panel's f32 weights.
const DEPTH_BLOCK: usize = 256;
/// Tiles of rows in a block.
const TILE_BLOCK: usize = 32;
/// Bytes of weights in a task of few rows.
const FEW_ROWS_BYTES: usize = 256 << 10;

/// A packed weight.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    panels: Panels,
    /// One per output, padded to whole panels; zeros where there is none.
    bias: Buffer<f32>,
}

#[derive(Debug)]
enum Panels {
    F32(Buffer<f32>),
    Bf16(Buffer<u16>),
}

/// Rows of a weight as they come from a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

impl Packed {
    /// A weight of zeros, f32 or bf16.
    pub(super) fn zeros(inputs: usize, outputs: usize, bf16: bool) -> Self {
        let panels = outputs.div_ceil(PANEL);
        let len = panels * inputs * PANEL;
        let values = if bf16 { Panels::Bf16(Buffer::zeros(len)) } else { Panels::F32(Buffer::zeros(len)) };
        Self { inputs, outputs, panels: values, bias: Buffer::zeros(panels * PANEL) }
    }

    /// Sets rows `first..` of the weight to `values` (`[rows][inputs]`), whose type is the weight's.
    pub(super) fn set_rows(&mut self, first: usize, values: Values<'_>) {
        match (&mut self.panels, values) {
            (Panels::F32(panels), Values::F32(values)) => set_rows(panels, self.inputs, first, values),
            (Panels::Bf16(panels), Values::Bf16(values)) => set_rows(panels, self.inputs, first, values),
            _ => debug_assert!(false, "rows of another type than the weight's"),
        }
    }

    /// Sets the bias of outputs `first..`.
    pub(super) fn set_bias(&mut self, first: usize, values: &[f32]) {
        self.bias[first..first + values.len()].copy_from_slice(values);
    }

    /// Row `index` of the weight, written to `row`.
    pub(super) fn row(&self, index: usize, row: &mut [f32]) {
        let from = index / PANEL * self.inputs * PANEL + index % PANEL;
        match &self.panels {
            Panels::F32(panels) => {
                for (k, value) in row.iter_mut().enumerate() {
                    *value = panels[from + k * PANEL];
                }
            }
            Panels::Bf16(panels) => {
                for (k, value) in row.iter_mut().enumerate() {
                    *value = f32::from_bits(u32::from(panels[from + k * PANEL]) << 16);
                }
            }
        }
    }

    /// Bytes of the packed weight.
    pub(super) fn bytes(&self) -> usize {
        let weights = match &self.panels {
            Panels::F32(values) => size_of_val(&**values),
            Panels::Bf16(values) => size_of_val(&**values),
        };
        weights + size_of_val(&*self.bias)
    }

    /// `[rows][inputs]` becomes `[rows][outputs]`.
    #[expect(unsafe_code, reason = "the result is written by tiles")]
    pub(super) fn product(&self, threads: &Threads, x: &[f32]) -> Vec<f32> {
        let rows = x.len().checked_div(self.inputs).unwrap_or(0);
        // SAFETY: each function writes every row of every panel.
        unsafe {
            filled(rows * self.outputs, |out| {
                if rows == 0 || self.outputs == 0 {
                } else if rows <= ROWS {
                    self.few_rows(threads, x, rows, out);
                } else {
                    self.many_rows(threads, x, rows, out);
                }
            })
        }
    }

    fn panel_count(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Weights of a panel from term `k` on.
    fn panel(&self, panel: usize, k: usize) -> Panel {
        let from = (panel * self.inputs + k) * PANEL;
        match &self.panels {
            Panels::F32(values) => Panel::F32(values[from..].as_ptr()),
            Panels::Bf16(values) => Panel::Bf16(values[from..].as_ptr()),
        }
    }

    fn few_rows(&self, threads: &Threads, x: &[f32], rows: usize, out: Target<'_>) {
        let mut packed = Vec::new();
        let a = if rows == 1 {
            x
        } else {
            packed.resize(x.len(), 0.0);
            pack_tile(x, self.inputs, &mut packed);
            &packed
        };
        let width = if matches!(self.panels, Panels::F32(_)) { 4 } else { 2 };
        let group = (FEW_ROWS_BYTES / (self.inputs * PANEL * width)).max(1);
        let panels = self.panel_count();
        threads.run(panels.div_ceil(group), &|task| {
            for panel in task * group..((task + 1) * group).min(panels) {
                let piece = Piece { panel, first_row: 0, rows, k: 0, depth: self.inputs };
                self.piece(&piece, a, out);
            }
        });
    }

    fn many_rows(&self, threads: &Threads, x: &[f32], rows: usize, out: Target<'_>) {
        let a = pack_rows(threads, x, self.inputs);
        let (tiles, panels) = (rows.div_ceil(ROWS), self.panel_count());
        let blocks = tiles.div_ceil(TILE_BLOCK);
        // Blocks of equal size, and tasks enough that threads end together.
        let tile_block = tiles.div_ceil(blocks);
        let group = (panels * blocks / (threads.count() * 8)).clamp(1, 8);
        let groups = panels.div_ceil(group);
        threads.run(blocks * groups, &|task| {
            let (block, group_of) = (task / groups, task % groups);
            let panels = group_of * group..((group_of + 1) * group).min(panels);
            let tiles = block * tile_block..((block + 1) * tile_block).min(tiles);
            for k in (0..self.inputs).step_by(DEPTH_BLOCK) {
                let depth = DEPTH_BLOCK.min(self.inputs - k);
                for panel in panels.clone() {
                    for tile in tiles.clone() {
                        let first_row = tile * ROWS;
                        let rows = ROWS.min(rows - first_row);
                        let from = first_row * self.inputs + k * rows;
                        self.piece(&Piece { panel, first_row, rows, k, depth }, &a[from..], out);
                    }
                }
            }
        });
    }

    /// One tile's part of the sum; `a` is its rows' `[depth][rows]`.
    #[expect(unsafe_code, reason = "tiles are addressed by pointers")]
    fn piece(&self, piece: &Piece, a: &[f32], out: Target<'_>) {
        let column = piece.panel * PANEL;
        let columns = PANEL.min(self.outputs - column);
        let to = out.address(piece.first_row * self.outputs + column);
        let first = piece.k == 0;
        let (init, init_stride) =
            if first { (self.bias[column..].as_ptr(), 0) } else { (to.cast_const(), self.outputs) };
        let a = &a[..piece.depth * piece.rows];
        let tile = Tile {
            depth: piece.depth,
            rows: piece.rows,
            a: a.as_ptr(),
            b: self.panel(piece.panel, piece.k),
            init,
            init_stride,
            out: to,
            out_stride: self.outputs,
        };
        // SAFETY: `a` was cut to size, the panel has `inputs` terms, the bias whole panels, and out has these rows and
        // columns, which no other task's panel and rows share; after the first block they have been written.
        unsafe { if columns == PANEL { tile.compute() } else { tile.compute_edge(columns, first) } }
    }
}

/// One tile's part of the sum: terms `k..k + depth` for some rows and a panel.
struct Piece {
    panel: usize,
    first_row: usize,
    rows: usize,
    k: usize,
    depth: usize,
}

fn set_rows<T: Copy>(panels: &mut [T], inputs: usize, first: usize, values: &[T]) {
    for (index, row) in values.chunks_exact(inputs).enumerate() {
        let output = first + index;
        let panel = &mut panels[output / PANEL * inputs * PANEL..][..inputs * PANEL];
        for (to, value) in panel.iter_mut().skip(output % PANEL).step_by(PANEL).zip(row) {
            *to = *value;
        }
    }
}

/// Packs up to 12 rows `[rows][inputs]` as `[inputs][rows]`.
fn pack_tile(x: &[f32], inputs: usize, packed: &mut [f32]) {
    let rows = x.len() / inputs;
    for (row, values) in x.chunks_exact(inputs).enumerate() {
        for (to, value) in packed[row..].iter_mut().step_by(rows).zip(values) {
            *to = *value;
        }
    }
}

/// Packs rows in tiles of 12, the last one with what is left.
#[expect(unsafe_code, reason = "threads write tiles of one result")]
fn pack_rows(threads: &Threads, x: &[f32], inputs: usize) -> Vec<f32> {
    let size = ROWS * inputs;
    // SAFETY: the tasks write all tiles, each its own.
    unsafe {
        filled(x.len(), |packed| {
            threads.run(x.len().div_ceil(size), &|tile| {
                let from = tile * size;
                let count = size.min(x.len() - from);
                pack_tile(&x[from..from + count], inputs, packed.part(from, count));
            });
        })
    }
}
