//! Keys and values of one head, in blocks that heads share, laid out for products of up to 12 queries at a time.
//!
//! A clone shares all blocks; the first write to a shared block copies it. A common prefix is therefore held once,
//! however many sequences go on from it.

use std::sync::Arc;

use super::buffer::{Buffer, Target};
use super::math;
use super::meter::{Charge, KvMeter};
use super::tile::{PANEL, Panel, ROWS, Tile};

/// Keys in a block: their scores for 12 queries stay in the L1 cache. Blocks start at multiples of it, so that a
/// query's sums do not depend on which tokens came in the same call.
pub(super) const BLOCK: usize = 256;

const ZEROS: [f32; PANEL] = [0.0; PANEL];

/// Keys and values of consecutive tokens of one head.
#[derive(Clone, Debug)]
pub(super) struct HeadPanels {
    dim: usize,
    len: usize,
    /// Each holds [`BLOCK`] tokens, the last one those that are left.
    blocks: Vec<Arc<Block>>,
    meter: KvMeter,
}

/// Keys as panels of 32 tokens `[panel][dim][32]`, values as panels of 32 dimensions `[panel][token][32]`.
#[derive(Clone, Debug)]
struct Block {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Tokens that there is room for.
    room: usize,
    _charge: Charge,
}

impl Block {
    fn new(dim: usize, room: usize, meter: &KvMeter) -> Self {
        let (keys, values) = (room * dim, room * dim.next_multiple_of(PANEL));
        let charge = meter.charge((keys + values) * size_of::<f32>());
        Self { keys: vec![0.0; keys], values: vec![0.0; values], room, _charge: charge }
    }

    /// Writes token `at`, which may have held another before.
    fn set(&mut self, at: usize, key: &[f32], value: &[f32]) {
        let column = at / PANEL * key.len() * PANEL + at % PANEL;
        for (to, key) in self.keys[column..].iter_mut().step_by(PANEL).zip(key) {
            *to = *key;
        }
        for (panel, part) in value.chunks(PANEL).enumerate() {
            self.values[(panel * self.room + at) * PANEL..][..part.len()].copy_from_slice(part);
        }
    }

    /// Reads token `at`.
    fn get(&self, at: usize, key: &mut [f32], value: &mut [f32]) {
        let column = at / PANEL * key.len() * PANEL + at % PANEL;
        for (key, from) in key.iter_mut().zip(self.keys[column..].iter().step_by(PANEL)) {
            *key = *from;
        }
        for (panel, part) in value.chunks_mut(PANEL).enumerate() {
            part.copy_from_slice(&self.values[(panel * self.room + at) * PANEL..][..part.len()]);
        }
    }
}

impl HeadPanels {
    pub(super) fn new(dim: usize, meter: &KvMeter) -> Self {
        Self { dim, len: 0, blocks: Vec::new(), meter: meter.clone() }
    }

    /// For `tokens` and no more: short ones take no whole block.
    pub(super) fn with_room(dim: usize, tokens: usize, meter: &KvMeter) -> Self {
        let mut panels = Self::new(dim, meter);
        if tokens <= BLOCK {
            panels.blocks.push(Arc::new(Block::new(dim, tokens.next_multiple_of(PANEL), meter)));
        }
        panels
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends one token's key and value.
    pub(super) fn push(&mut self, key: &[f32], value: &[f32]) {
        let number = self.len / BLOCK;
        if number == self.blocks.len() {
            self.blocks.push(Arc::new(Block::new(self.dim, BLOCK, &self.meter)));
        }
        Arc::make_mut(&mut self.blocks[number]).set(self.len % BLOCK, key, value);
        self.len += 1;
    }

    /// Forgets all tokens from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.blocks.truncate(self.len.div_ceil(BLOCK));
    }

    /// Of the tokens from `from` on, keeps those at these places (counted from `from`, rising).
    pub(super) fn keep(&mut self, from: usize, places: &[usize]) {
        let mut kept = vec![0.0; places.len() * 2 * self.dim];
        for (token, place) in kept.chunks_exact_mut(2 * self.dim).zip(places) {
            let (key, value) = token.split_at_mut(self.dim);
            let at = from + place;
            self.blocks[at / BLOCK].get(at % BLOCK, key, value);
        }
        self.truncate(from);
        for token in kept.chunks_exact(2 * self.dim) {
            let (key, value) = token.split_at(self.dim);
            self.push(key, value);
        }
    }

    /// All keys, token by token.
    pub(super) fn keys(&self) -> Vec<f32> {
        let (mut keys, mut value) = (vec![0.0; self.len * self.dim], vec![0.0; self.dim]);
        for (at, key) in keys.chunks_exact_mut(self.dim).enumerate() {
            self.blocks[at / BLOCK].get(at % BLOCK, key, &mut value);
        }
        keys
    }

    /// Bytes of its blocks, shared ones included.
    pub(super) fn bytes(&self) -> usize {
        let of = |block: &Arc<Block>| (block.keys.len() + block.values.len()) * size_of::<f32>();
        self.blocks.iter().map(of).sum()
    }

    /// Bytes of one block.
    pub(super) fn block_bytes(dim: usize) -> usize {
        BLOCK * (dim + dim.next_multiple_of(PANEL)) * size_of::<f32>()
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
        let held = &head.blocks[block / BLOCK];
        for column in (0..keys).step_by(PANEL) {
            let panel = &held.keys[column * self.dim..][..self.dim * PANEL];
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
        let held = &head.blocks[block / BLOCK];
        for (panel, values) in held.values.chunks_exact(held.room * PANEL).enumerate() {
            let values = &values[..keys * PANEL];
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
