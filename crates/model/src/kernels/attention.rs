//! Rotary attention: causal over the caches of several sequences (language), and inside segments (vision).
//!
//! Blocked over the keys with running maxima and sums, so that memory does not grow with the square of the tokens.

use candle_core::{Result, Tensor, bail};

use super::buffer::{Target, filled};
use super::panels::{HeadPanels, Queries};
use super::tensor::{from_f32, is_ours, with_f32};
use super::tile::ROWS;
use super::{KvCache, KvMeter, Rotary, Threads, fallback, math};

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

/// New tokens of one sequence in a call of [`causal_attention`].
#[derive(Debug)]
pub struct KvSpan<'a> {
    /// What came before them.
    pub cache: &'a mut KvCache,
    /// How many.
    pub tokens: usize,
    /// Where they are a tree instead of a chain: for each the token, counted from the span's first, that it follows;
    /// none where it follows the cache. A parent stands before its children.
    pub tree: Option<&'a [Option<usize>]>,
}

/// Turns queries and keys, appends keys and values to the caches, and lets each new token attend to its own sequence's
/// cache up to itself; in a tree to the cache and its own ancestors.
///
/// `qkv` is `[tokens, (query + 2·kv)·dim]` with the spans' tokens one span after the other, the result
/// `[tokens, query·dim]`. A token's result has the same bits whatever else is in the call: alone, in a chunk, or as
/// the end of a path through a tree.
///
/// # Errors
/// Where shapes do not fit each other.
pub fn causal_attention(
    threads: &Threads,
    qkv: &Tensor,
    rotary: &Rotary,
    heads: &Heads,
    spans: &mut [KvSpan<'_>],
) -> Result<Tensor> {
    let tokens = check(qkv, rotary, heads)?;
    check_spans(spans, tokens, heads)?;
    if !is_ours(qkv) {
        return fallback_spans(qkv, rotary, heads, spans);
    }
    let out = with_input(qkv, rotary, heads, |input| {
        input.append_spans(threads, spans)?;
        Ok(input.causal(threads, spans))
    })?;
    from_f32(out, &[tokens, heads.query * heads.dim])
}

fn check_spans(spans: &[KvSpan<'_>], tokens: usize, heads: &Heads) -> Result<()> {
    let sum: usize = spans.iter().map(|span| span.tokens).sum();
    if sum != tokens {
        bail!("spans of {sum} tokens for {tokens} rows");
    }
    for span in spans {
        span.cache.check(heads)?;
        if let Some(tree) = span.tree {
            let ordered = tree.iter().enumerate().all(|(at, parent)| parent.is_none_or(|parent| parent < at));
            if tree.len() != span.tokens || !ordered {
                bail!("tree {tree:?} of {} tokens", span.tokens);
            }
        }
    }
    Ok(())
}

/// One sequence after the other.
fn fallback_spans(qkv: &Tensor, rotary: &Rotary, heads: &Heads, spans: &mut [KvSpan<'_>]) -> Result<Tensor> {
    let (q, k, v) = fallback::split_and_rotate(qkv, rotary, heads)?;
    let mut first = 0;
    let attended = spans.iter_mut().filter(|span| span.tokens > 0).map(|span| {
        let part = |t: &Tensor| t.narrow(1, first, span.tokens);
        let (k, v) = span.cache.append_tensors(&part(&k)?, &part(&v)?)?;
        let q = part(&q)?;
        first += span.tokens;
        let mask = span.tree.map_or(fallback::Mask::Causal, fallback::Mask::Tree);
        fallback::attend(&q, &k, &v, heads, mask)
    });
    Tensor::cat(&attended.collect::<Result<Vec<_>>>()?, 0)
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
            fallback::attend(&part(&q)?, &part(&k)?, &part(&v)?, heads, fallback::Mask::None)
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
        tokens.for_each(|token| self.append_one(kv, token, &mut key, panels));
    }

    fn append_one(&self, kv: usize, token: usize, key: &mut [f32], panels: &mut HeadPanels) {
        self.rotated(token, self.heads.query + kv, 1.0, key);
        panels.push(key, self.head(token, self.heads.query + self.heads.kv + kv));
    }

    /// Appends all spans' tokens to their caches.
    fn append_spans(&self, threads: &Threads, spans: &mut [KvSpan<'_>]) -> Result<()> {
        let (mut first, mut work) = (0, Vec::with_capacity(spans.len() * self.heads.kv));
        for span in spans {
            let tokens = first..first + span.tokens;
            first = tokens.end;
            let panels = span.cache.grow_panels(span.tokens)?;
            work.extend(panels.iter_mut().enumerate().map(|(kv, panels)| (kv, tokens.clone(), panels)));
        }
        let append =
            |_: usize, (kv, tokens, panels): &mut (usize, std::ops::Range<usize>, &mut HeadPanels)| {
                self.append(*kv, tokens.clone(), panels);
            };
        if self.tokens < THREADED_APPEND {
            work.iter_mut().for_each(|item| append(0, item));
        } else {
            threads.for_each(&mut work, &append);
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "threads write parts of one result")]
    fn causal(&self, threads: &Threads, spans: &[KvSpan<'_>]) -> Vec<f32> {
        let tasks = self.causal_tasks(spans);
        let fill = |out: Target<'_>| {
            threads.run(tasks.len(), &|number| {
                let task = &tasks[number];
                match task.tree {
                    Some(tree) => self.attend_tree(task, tree, out),
                    None => self.attend_chain(task, out),
                }
            });
        };
        // SAFETY: the tasks' rows are all tokens of all heads, each once.
        unsafe { filled(self.tokens * self.heads.query * self.heads.dim, fill) }
    }

    /// Pieces of work of similar size, those that see the most keys first.
    fn causal_tasks<'a>(&self, spans: &'a [KvSpan<'_>]) -> Vec<CausalTask<'a>> {
        let group = self.heads.query / self.heads.kv;
        let (mut first, mut tasks) = (0, Vec::new());
        for span in spans {
            let rows = span.tokens * group;
            // The tokens of a tree share one scratch copy of the cache's end.
            let step = if span.tree.is_some() { rows.max(1) } else { TASK_ROWS };
            for (kv, panels) in span.cache.panels().iter().enumerate() {
                tasks.extend((0..rows).step_by(step).map(|row| CausalTask {
                    kv,
                    panels,
                    first,
                    before: panels.len() - span.tokens,
                    rows: row..rows.min(row + step),
                    tree: span.tree,
                }));
            }
            first += span.tokens;
        }
        tasks.sort_by_key(|task| std::cmp::Reverse(task.rows.len() * (task.before + task.rows.end / group)));
        tasks
    }

    fn attend_chain(&self, task: &CausalTask<'_>, out: Target<'_>) {
        let group = self.heads.query / self.heads.kv;
        let row = |row: usize| Row {
            token: task.first + row / group,
            head: task.kv * group + row % group,
            visible: task.before + row / group + 1,
        };
        self.attend(task.rows.clone(), &row, task.panels, out);
    }

    /// Each token sees the cache and its own path, laid out as if the path had come alone.
    fn attend_tree(&self, task: &CausalTask<'_>, tree: &[Option<usize>], out: Target<'_>) {
        let group = self.heads.query / self.heads.kv;
        // Shares the cache's blocks; the first push copies the last one.
        let mut path = task.panels.clone();
        let mut key = vec![0.0; self.heads.dim];
        for (token, _) in tree.iter().enumerate() {
            let mut ancestors: Vec<usize> =
                std::iter::successors(Some(token), |&token| tree[token]).collect();
            ancestors.reverse();
            path.truncate(task.before);
            ancestors.iter().for_each(|&at| self.append_one(task.kv, task.first + at, &mut key, &mut path));
            let row = |row: usize| Row {
                token: task.first + token,
                head: task.kv * group + row,
                visible: path.len(),
            };
            self.attend(0..group, &row, &path, out);
        }
    }

    #[expect(unsafe_code, reason = "threads write parts of one result")]
    fn segments(&self, threads: &Threads, cu_seqlens: &[u32]) -> Vec<f32> {
        let group = self.heads.query / self.heads.kv;
        let meter = KvMeter::default();
        let fill = |out: Target<'_>| {
            threads.run((cu_seqlens.len() - 1) * self.heads.kv, &|task| {
                let (segment, kv) = (task / self.heads.kv, task % self.heads.kv);
                let (from, to) = (cu_seqlens[segment] as usize, cu_seqlens[segment + 1] as usize);
                let mut panels = HeadPanels::with_room(self.heads.dim, to - from, &meter);
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

/// Queries of one span that share a key head.
struct CausalTask<'a> {
    kv: usize,
    panels: &'a HeadPanels,
    /// The span's first token in the call.
    first: usize,
    /// Tokens in the cache before it.
    before: usize,
    /// Rows of the span: token by token, the heads of the group.
    rows: std::ops::Range<usize>,
    tree: Option<&'a [Option<usize>]>,
}

/// A query: whose it is, and how many keys it sees.
struct Row {
    token: usize,
    head: usize,
    visible: usize,
}
