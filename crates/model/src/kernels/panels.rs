//! Keys and values of one head, laid out for products of up to 12 queries at a time.

use super::buffer::{Buffer, Target};
use super::math;
use super::tile::{PANEL, Panel, ROWS, Tile};

/// Keys in a block: their scores for 12 queries stay in the L1 cache. Blocks start at multiples of it, so that a
/// query's sums do not depend on which tokens came in the same call.
const BLOCK: usize = 256;

const ZEROS: [f32; PANEL] = [0.0; PANEL];

/// Keys as panels of 32 tokens `[panel][dim][32]`, values as panels of 32 dimensions, each `[token][32]`.
#[derive(Clone, Debug)]
pub(super) struct HeadPanels {
    dim: usize,
    len: usize,
    keys: Vec<f32>,
    values: Vec<Vec<f32>>,
}

impl HeadPanels {
    pub(super) fn new(dim: usize) -> Self {
        Self { dim, len: 0, keys: Vec::new(), values: vec![Vec::new(); dim.div_ceil(PANEL)] }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn reserve(&mut self, tokens: usize) {
        let panels = (self.len + tokens).div_ceil(PANEL);
        self.keys.reserve((panels * self.dim * PANEL).saturating_sub(self.keys.len()));
        self.values.iter_mut().for_each(|values| values.reserve(tokens * PANEL));
    }

    /// Appends one token's key and value.
    pub(super) fn push(&mut self, key: &[f32], value: &[f32]) {
        if self.len.is_multiple_of(PANEL) {
            // A truncated cache may have this panel already.
            self.keys.resize((self.len / PANEL + 1) * self.dim * PANEL, 0.0);
        }
        let column = self.len / PANEL * self.dim * PANEL + self.len % PANEL;
        for (to, key) in self.keys[column..].iter_mut().step_by(PANEL).zip(key) {
            *to = *key;
        }
        for (values, part) in self.values.iter_mut().zip(value.chunks(PANEL)) {
            values.extend_from_slice(part);
            values.resize((self.len + 1) * PANEL, 0.0);
        }
        self.len += 1;
    }

    /// Gives back what growing reserved ahead.
    pub(super) fn shrink(&mut self) {
        self.keys.shrink_to_fit();
        self.values.iter_mut().for_each(Vec::shrink_to_fit);
    }

    /// Bytes that are reserved.
    pub(super) fn bytes(&self) -> usize {
        let values: usize = self.values.iter().map(Vec::capacity).sum();
        (self.keys.capacity() + values) * size_of::<f32>()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.keys.truncate(self.len.div_ceil(PANEL) * self.dim * PANEL);
        self.values.iter_mut().for_each(|values| values.truncate(self.len * PANEL));
    }
}

/// Up to 12 queries of one head with what they have summed up so far.
pub(super) struct Queries {
    dim: usize,
    rows: usize,
    /// Keys that each row sees: a prefix.
    visible: [usize; ROWS],
    max: [f32; ROWS],
    sum: [f32; ROWS],
    /// `[dim][rows]`, scaled.
    queries: Buffer<f32>,
    /// `[rows][BLOCK]`.
    scores: Buffer<f32>,
    /// The block's weights as `[key][rows]`.
    weights: Buffer<f32>,
    /// `[rows][dim, padded to panels]`.
    mixed: Buffer<f32>,
}

impl Queries {
    pub(super) fn new(dim: usize) -> Self {
        Self {
            dim,
            rows: 0,
            visible: [0; ROWS],
            max: [0.0; ROWS],
            sum: [0.0; ROWS],
            queries: Buffer::zeros(ROWS * dim),
            scores: Buffer::zeros(ROWS * BLOCK),
            weights: Buffer::zeros(ROWS * BLOCK),
            mixed: Buffer::zeros(ROWS * dim.next_multiple_of(PANEL)),
        }
    }

    /// Starts anew with `rows` queries.
    pub(super) fn start(&mut self, rows: usize) {
        self.rows = rows;
        self.max = [f32::NEG_INFINITY; ROWS];
        self.sum = [0.0; ROWS];
        self.mixed.fill(0.0);
    }

    /// Sets a row's query, already scaled, and how many keys it sees: one at least.
    pub(super) fn set(&mut self, row: usize, query: &[f32], visible: usize) {
        for (to, query) in self.queries[row..].iter_mut().step_by(self.rows).zip(query) {
            *to = *query;
        }
        self.visible[row] = visible;
    }

    /// Lets the queries attend to the head's keys and values.
    pub(super) fn attend(&mut self, head: &HeadPanels) {
        let seen = self.visible[..self.rows].iter().copied().max().unwrap_or(0).min(head.len);
        for block in (0..seen).step_by(BLOCK) {
            let keys = BLOCK.min(seen - block);
            self.score(head, block, keys);
            self.weigh(block, keys);
            self.mix(head, block, keys);
        }
    }

    /// A row's result, `dim` values.
    pub(super) fn result(&self, row: usize, out: &mut [f32]) {
        let padded = self.dim.next_multiple_of(PANEL);
        let scale = 1.0 / self.sum[row];
        for (out, mixed) in out.iter_mut().zip(&self.mixed[row * padded..]) {
            *out = mixed * scale;
        }
    }

    /// Products of the queries with a block's keys.
    #[expect(unsafe_code, reason = "tiles are addressed by pointers")]
    fn score(&mut self, head: &HeadPanels, block: usize, keys: usize) {
        let scores = Target::new(&mut self.scores);
        for column in (0..keys).step_by(PANEL) {
            let panel = &head.keys[(block + column) * self.dim..][..self.dim * PANEL];
            let tile = Tile {
                depth: self.dim,
                rows: self.rows,
                a: self.queries.as_ptr(),
                b: Panel::F32(panel.as_ptr()),
                init: ZEROS.as_ptr(),
                init_stride: 0,
                out: scores.address(column),
                out_stride: BLOCK,
            };
            // SAFETY: queries, panel and zeros have the sizes said, and scores has ROWS rows of BLOCK values.
            unsafe { tile.compute() };
        }
    }

    /// Turns a block's scores into weights, and shrinks what was mixed before where a larger score came.
    fn weigh(&mut self, block: usize, keys: usize) {
        let padded = self.dim.next_multiple_of(PANEL);
        let width = keys.next_multiple_of(PANEL);
        for row in 0..self.rows {
            let scores = &mut self.scores[row * BLOCK..][..width];
            scores[self.visible[row].saturating_sub(block).min(width)..].fill(f32::NEG_INFINITY);
            let max = math::max_with(scores, self.max[row]);
            let shrink = math::shrink(self.max[row], max);
            self.sum[row] = self.sum[row] * shrink + math::exp_and_sum(scores, max);
            self.max[row] = max;
            if shrink != 1.0 {
                math::scale(&mut self.mixed[row * padded..][..padded], shrink);
            }
            for (to, score) in self.weights[row..].iter_mut().step_by(self.rows).zip(&scores[..keys]) {
                *to = *score;
            }
        }
    }

    /// Adds a block's weighted values.
    #[expect(unsafe_code, reason = "tiles are addressed by pointers")]
    fn mix(&mut self, head: &HeadPanels, block: usize, keys: usize) {
        let padded = self.dim.next_multiple_of(PANEL);
        let mixed = Target::new(&mut self.mixed);
        for (panel, values) in head.values.iter().enumerate() {
            let values = &values[block * PANEL..][..keys * PANEL];
            let to = mixed.address(panel * PANEL);
            let tile = Tile {
                depth: keys,
                rows: self.rows,
                a: self.weights.as_ptr(),
                b: Panel::F32(values.as_ptr()),
                init: to.cast_const(),
                init_stride: padded,
                out: to,
                out_stride: padded,
            };
            // SAFETY: weights has a value per key and row, values a panel's row per key, mixed ROWS rows.
            unsafe { tile.compute() };
        }
    }
}
