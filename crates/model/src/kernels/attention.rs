//! Rotary attention: causal over a cache (language), and inside segments (vision).
//!
//! Blocked over the keys with running maxima and sums, so that memory does not grow with the square of the tokens.

use candle_core::{Result, Tensor, bail};

use super::buffer::{Target, filled};
use super::panels::{HeadPanels, Queries};
use super::tensor::{from_f32, is_ours, with_f32};
use super::tile::ROWS;
use super::{KvCache, Rotary, Threads, fallback, math};

/// Query rows in a task of [`causal_attention`].
const TASK_ROWS: usize = 4 * ROWS;
/// Tokens from which on appending to a cache is worth waking threads.
const THREADED_APPEND: usize = 16;

/// Heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; each serves `query / kv` query heads.
    pub kv: usize,
    /// Values of a head, an even number.
    pub dim: usize,
}

/// Turns queries and keys, appends keys and values to the cache, and lets each new token attend to the cache up to itself.
///
/// `qkv` is `[tokens, (query + 2·kv)·dim]`, the result `[tokens, query·dim]`.
///
/// # Errors
/// Where shapes do not fit each other.
pub fn causal_attention(
    threads: &Threads,
    qkv: &Tensor,
    rotary: &Rotary,
    heads: &Heads,
    cache: &mut KvCache,
) -> Result<Tensor> {
    let tokens = check(qkv, rotary, heads)?;
    cache.check(heads)?;
    if !is_ours(qkv) {
        let (q, k, v) = fallback::split_and_rotate(qkv, rotary, heads)?;
        let (k, v) = cache.append_tensors(&k, &v)?;
        return fallback::attend(&q, &k, &v, heads, true);
    }
    let panels = cache.grow_panels(tokens)?;
    let out = with_input(qkv, rotary, heads, |input| {
        let append = |kv: usize, panels: &mut HeadPanels| input.append(kv, 0..tokens, panels);
        if tokens < THREADED_APPEND {
            panels.iter_mut().enumerate().for_each(|(kv, panels)| append(kv, panels));
        } else {
            threads.for_each(panels, &append);
        }
        Ok(input.causal(threads, panels))
    })?;
    from_f32(out, &[tokens, heads.query * heads.dim])
}

/// Turns queries and keys, and lets each token attend to all tokens of its own segment.
///
/// `qkv` is `[tokens, (query + 2·kv)·dim]`; segment `i` holds tokens `cu_seqlens[i]..cu_seqlens[i + 1]`.
/// The result is `[tokens, query·dim]`.
///
/// # Errors
/// Where shapes or bounds do not fit each other.
pub fn segment_attention(
    threads: &Threads,
    qkv: &Tensor,
    rotary: &Rotary,
    heads: &Heads,
    cu_seqlens: &[u32],
) -> Result<Tensor> {
    let tokens = check(qkv, rotary, heads)?;
    let ends = (cu_seqlens.first(), cu_seqlens.last().map(|last| *last as usize));
    if ends != (Some(&0), Some(tokens)) || !cu_seqlens.is_sorted() {
        bail!("segment bounds {cu_seqlens:?} do not cut {tokens} tokens");
    }
    if !is_ours(qkv) {
        let (q, k, v) = fallback::split_and_rotate(qkv, rotary, heads)?;
        let attend = |bounds: &[u32]| {
            let part = |t: &Tensor| t.narrow(1, bounds[0] as usize, (bounds[1] - bounds[0]) as usize);
            fallback::attend(&part(&q)?, &part(&k)?, &part(&v)?, heads, false)
        };
        let filled = cu_seqlens.windows(2).filter(|bounds| bounds[0] < bounds[1]);
        return Tensor::cat(&filled.map(attend).collect::<Result<Vec<_>>>()?, 0);
    }
    let out = with_input(qkv, rotary, heads, |input| Ok(input.segments(threads, cu_seqlens)))?;
    from_f32(out, &[tokens, heads.query * heads.dim])
}

/// Checks the shapes and gives the number of tokens.
fn check(qkv: &Tensor, rotary: &Rotary, heads: &Heads) -> Result<usize> {
    let (tokens, width) = qkv.dims2()?;
    let whole = heads.kv > 0 && heads.query.is_multiple_of(heads.kv) && heads.dim.is_multiple_of(2);
    if !whole || width != (heads.query + 2 * heads.kv) * heads.dim {
        bail!("rows of {width} values are not those of {heads:?}");
    }
    let angles = [tokens, heads.dim / 2];
    if rotary.cos.dims() != angles || rotary.sin.dims() != angles {
        bail!("rotary angles are {:?}, wanted {angles:?}", rotary.cos.dims());
    }
    Ok(tokens)
}

/// One call's input as slices.
struct Input<'a> {
    qkv: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    heads: Heads,
    tokens: usize,
}

fn with_input<T>(
    qkv: &Tensor,
    rotary: &Rotary,
    heads: &Heads,
    work: impl FnOnce(&Input<'_>) -> Result<T>,
) -> Result<T> {
    let tokens = qkv.dim(0)?;
    with_f32(qkv, |qkv| {
        with_f32(&rotary.cos, |cos| {
            with_f32(&rotary.sin, |sin| work(&Input { qkv, cos, sin, heads: *heads, tokens }))
        })
    })
}

impl Input<'_> {
    /// The values of a head of a token; query heads come first, then key heads, then value heads.
    fn head(&self, token: usize, head: usize) -> &[f32] {
        let width = (self.heads.query + 2 * self.heads.kv) * self.heads.dim;
        &self.qkv[token * width + head * self.heads.dim..][..self.heads.dim]
    }

    fn rotated(&self, token: usize, head: usize, scale: f32, out: &mut [f32]) {
        let half = self.heads.dim / 2;
        let angles = token * half..(token + 1) * half;
        math::rotate(self.head(token, head), &self.cos[angles.clone()], &self.sin[angles], scale, out);
    }

    /// Appends tokens' keys and values of head `kv`.
    fn append(&self, kv: usize, tokens: std::ops::Range<usize>, panels: &mut HeadPanels) {
        let mut key = vec![0.0; self.heads.dim];
        panels.reserve(tokens.len());
        for token in tokens {
            self.rotated(token, self.heads.query + kv, 1.0, &mut key);
            panels.push(&key, self.head(token, self.heads.query + self.heads.kv + kv));
        }
    }

    #[expect(unsafe_code, reason = "threads write parts of one result")]
    fn causal(&self, threads: &Threads, panels: &[HeadPanels]) -> Vec<f32> {
        let group = self.heads.query / self.heads.kv;
        let rows = self.tokens * group;
        let chunks = rows.div_ceil(TASK_ROWS);
        let fill = |out: Target<'_>| {
            threads.run(self.heads.kv * chunks, &|task| {
                // Last rows first: they see the most keys.
                let (kv, chunk) = (task % self.heads.kv, chunks - 1 - task / self.heads.kv);
                let before = panels[kv].len() - self.tokens;
                let row = |row: usize| Row {
                    token: row / group,
                    head: kv * group + row % group,
                    visible: before + row / group + 1,
                };
                let rows = chunk * TASK_ROWS..((chunk + 1) * TASK_ROWS).min(rows);
                self.attend(rows, &row, &panels[kv], out);
            });
        };
        // SAFETY: the tasks' rows are all tokens of all heads, each once.
        unsafe { filled(rows * self.heads.kv * self.heads.dim, fill) }
    }

    #[expect(unsafe_code, reason = "threads write parts of one result")]
    fn segments(&self, threads: &Threads, cu_seqlens: &[u32]) -> Vec<f32> {
        let group = self.heads.query / self.heads.kv;
        let fill = |out: Target<'_>| {
            threads.run((cu_seqlens.len() - 1) * self.heads.kv, &|task| {
                let (segment, kv) = (task / self.heads.kv, task % self.heads.kv);
                let (from, to) = (cu_seqlens[segment] as usize, cu_seqlens[segment + 1] as usize);
                let mut panels = HeadPanels::new(self.heads.dim);
                self.append(kv, from..to, &mut panels);
                let row = |row: usize| Row {
                    token: from + row / group,
                    head: kv * group + row % group,
                    visible: to - from,
                };
                self.attend(0..(to - from) * group, &row, &panels, out);
            });
        };
        // SAFETY: the segments hold every token once, so the tasks' rows are all tokens of all heads.
        unsafe { filled(self.tokens * self.heads.query * self.heads.dim, fill) }
    }

    /// Attends with the queries `rows`, which share a key head, in tiles of 12.
    #[expect(unsafe_code, reason = "threads write parts of one result")]
    fn attend(
        &self,
        rows: std::ops::Range<usize>,
        row: &dyn Fn(usize) -> Row,
        panels: &HeadPanels,
        out: Target<'_>,
    ) {
        let dim = self.heads.dim;
        let scale = 1.0 / (dim as f32).sqrt();
        let mut queries = Queries::new(dim);
        let mut query = vec![0.0; dim];
        for first in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - first);
            queries.start(count);
            for index in 0..count {
                let row = row(first + index);
                self.rotated(row.token, row.head, scale, &mut query);
                queries.set(index, &query, row.visible);
            }
            queries.attend(panels);
            for index in 0..count {
                let row = row(first + index);
                let from = (row.token * self.heads.query + row.head) * dim;
                // SAFETY: no two rows are of the same token and head.
                queries.result(index, unsafe { out.part(from, dim) });
            }
        }
    }
}

/// A query: whose it is, and how many keys it sees.
struct Row {
    token: usize,
    head: usize,
    visible: usize,
}
