//! One request on its way through the model: vision, prefill, decoding, scores. A sequence never computes by itself: each
//! step it says what it wants to run next ([`Sequence::prepare`]), the batch runs that together with what the others want,
//! and gives back the rows of logits ([`Sequence::advance`]).

use std::time::Instant;

use candle_core::Tensor;
use spectemp_engine::{Generation, Request, VlmError};
use spectemp_types::{StageTimes, TokenCounts, TurnFinish};
use tokio::sync::oneshot;

use crate::ModelError;
use crate::kv::Cache;
use crate::memory::Usage;
use crate::prompt::{Prompt, PromptImage, text_key};
use crate::rope::{Position, next_position};
use crate::score::Scoring;
use crate::speculate::{Guess, Known, Piece, Speculator};
use crate::text::{Rows, Span, TextModel};
use crate::writer::{Writer, Written};

/// Tokens that scoring may add behind the output: the tag and a candidate.
const SCORE_TOKENS: usize = 64;

/// Tokens that guesses may add behind it.
pub(crate) const GUESS_TOKENS: usize = 32;

/// Where the answer goes.
pub(crate) type Reply = oneshot::Sender<Result<Generation, VlmError>>;

/// A request and all that it has come to so far.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) prompt: Prompt,
    request: Request,
    /// Taken once it is answered.
    reply: Option<Reply>,
    pub(crate) cache: Cache,
    /// Tokens that the cache held when the work began.
    reused: usize,
    /// Tokens of the images that went through the vision tower for it.
    pub(crate) encoded: usize,
    /// Embeddings of the prompt's images, as far as they are there and needed.
    pub(crate) embeds: Vec<Option<Tensor>>,
    stage: Stage,
    writer: Option<Writer>,
    /// Who guesses ahead, where anybody does.
    speculator: Option<Speculator>,
    /// What was guessed for this step.
    guess: Guess,
    /// What runs in this step.
    input: Option<Input>,
    /// Position of the first token after the prompt.
    next: u32,
    times: StageTimes,
    /// When the present stage began.
    since: Instant,
    /// The step in which it last got a share of what must be shared out: the least recent goes first.
    pub(crate) served: u64,
}

#[derive(Debug)]
enum Stage {
    Waiting,
    Vision,
    Prefill,
    Decode,
    Score(Written, Scoring),
    Done(Written, Option<Vec<f64>>),
    /// It failed, and was told so.
    Gone,
}

/// A sequence that is done.
pub(crate) struct Completed {
    /// What each token of the cache is.
    pub(crate) keys: Vec<u64>,
    pub(crate) cache: Cache,
    pub(crate) generation: Generation,
    pub(crate) reply: Reply,
}

/// Tokens that run in one step.
#[derive(Debug)]
struct Input {
    /// `[tokens, hidden]`
    x: Tensor,
    positions: Vec<Position>,
    rows: Rows,
    /// Where guesses have siblings: what each token follows.
    tree: Option<Vec<Option<usize>>>,
}

impl Sequence {
    pub(crate) fn new(prompt: Prompt, request: Request, writer: Writer, reply: Reply) -> Self {
        Self {
            next: next_position(&prompt.positions),
            embeds: vec![None; prompt.images.len()],
            prompt,
            // The conversation is in the prompt.
            request: Request { messages: Vec::new(), ..request },
            reply: Some(reply),
            cache: Cache::default(),
            reused: 0,
            encoded: 0,
            stage: Stage::Waiting,
            writer: Some(writer),
            speculator: None,
            guess: Guess::default(),
            input: None,
            times: StageTimes::default(),
            since: Instant::now(),
            served: 0,
        }
    }

    /// Lets somebody guess ahead.
    pub(crate) fn with_speculator(self, speculator: Option<Speculator>) -> Self {
        Self { speculator, ..self }
    }

    /// Starts the work in step `clock` after what `cache` holds of the prompt.
    pub(crate) fn begin(&mut self, cache: Cache, clock: u64) {
        // Not before those that began earlier.
        self.served = clock;
        self.times.wait_ms = self.lap();
        self.reused = cache.len();
        self.cache = cache;
        self.stage = Stage::Vision;
    }

    /// Most tokens that it will ever hold.
    pub(crate) fn most_tokens(prompt: usize, request: &Request) -> usize {
        let score = if request.score.is_some() { SCORE_TOKENS } else { 0 };
        prompt + request.max_new_tokens as usize + score
    }

    /// The same of this one.
    pub(crate) fn tokens_at_most(&self) -> usize {
        let guesses = if self.speculator.is_some() { GUESS_TOKENS } else { 0 };
        Self::most_tokens(self.prompt.ids.len(), &self.request) + guesses
    }

    /// What guessing ahead takes beside its own cache.
    pub(crate) fn guesses(&self) -> Usage {
        self.speculator.as_ref().map_or(Usage::default(), |speculator| {
            let held = speculator.proposer.held_bytes();
            Usage { held, promised: speculator.most_bytes.saturating_sub(held) }
        })
    }

    /// Whether nobody waits for it any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.request.cancel.is_cancelled() || self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Whether it failed, and was told so.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Gone)
    }

    /// Whether it has written nothing to its cache yet, all of which it may share with others.
    pub(crate) fn is_fresh(&self) -> bool {
        self.cache.len() == self.reused
    }

    /// Whether images must be encoded before it can go on.
    pub(crate) fn wants_vision(&self) -> bool {
        matches!(self.stage, Stage::Vision)
    }

    /// Whether a part of its prompt is still to come into the cache.
    pub(crate) fn is_filling(&self) -> bool {
        matches!(self.stage, Stage::Vision | Stage::Prefill)
    }

    /// Tokens of the prompt that are still to run, where that is what it wants next.
    pub(crate) fn wants_prefill(&self) -> Option<usize> {
        matches!(self.stage, Stage::Prefill).then(|| self.prompt.ids.len() - self.cache.len())
    }

    /// Whether it writes.
    pub(crate) fn is_decoding(&self) -> bool {
        matches!(self.stage, Stage::Decode)
    }

    /// Whether to guess what comes next, where it writes with so many in all; `pays` is what was measured. None where it
    /// does not write or nobody guesses for it.
    pub(crate) fn may_guess(&self, decoding: usize, pays: bool) -> Option<bool> {
        let speculator = self.speculator.as_ref().filter(|_| self.is_decoding())?;
        Some(speculator.most_sequences.map_or(pays, |most| decoding <= most))
    }

    /// Guesses what comes next; nothing while the drafter is being made. Tells of the piece of it that was made now, where
    /// that was allowed.
    ///
    /// # Errors
    /// Where the proposer fails.
    pub(crate) fn propose(&mut self, text: &TextModel, may_make: bool) -> Result<Option<Piece>, ModelError> {
        let (Some(speculator), Some(writer)) = (&mut self.speculator, &mut self.writer) else {
            return Ok(None);
        };
        let mut decided = writer.ids().to_vec();
        decided.extend(writer.settled(&self.request));
        // The last row decides a token without a guess.
        let room = (self.request.max_new_tokens as usize - decided.len()).saturating_sub(1);
        if room == 0 {
            return Ok(None);
        }
        let (prompt, cache) = (&self.prompt, &self.cache);
        let known = Known { prompt, decided: &decided, position: self.next, text, cache, room };
        let making = if may_make { speculator.proposer.start(&known)? } else { None };
        let guess = speculator.proposer.propose(&known)?;
        let vocab = text.vocab();
        self.guess = guess.pruned(|path| match path.iter().position(|&id| id as usize >= vocab) {
            Some(unknown) => Ok(unknown),
            None => writer.admits(path),
        })?;
        Ok(making)
    }

    /// Whether it wants few tokens run that nobody needs to share out.
    pub(crate) fn wants_tokens(&self) -> bool {
        matches!(self.stage, Stage::Decode | Stage::Score(..))
    }

    /// Whether an image's embeddings are needed: the cache does not hold all its tokens.
    pub(crate) fn needs(&self, image: &PromptImage) -> bool {
        image.at + image.tokens > self.cache.len()
    }

    /// All images that are needed have their embeddings.
    pub(crate) fn end_vision(&mut self) {
        self.times.vision_ms = self.lap();
        self.stage = Stage::Prefill;
    }

    /// Sets what runs in this step; of a prompt at most `share` tokens.
    ///
    /// # Errors
    /// Where a token is not in the vocabulary, or the device fails.
    pub(crate) fn prepare(&mut self, text: &TextModel, share: usize) -> Result<(), ModelError> {
        let prompt = self.prompt.ids.len();
        let input = match &self.stage {
            Stage::Prefill => {
                let start = self.cache.len();
                let end = prompt.min(start + share);
                let rows = if end == prompt { Rows::Last } else { Rows::None };
                let x = self.embed(text, start, end)?;
                let positions = self.prompt.positions[start..end].to_vec();
                Some(Input { x, positions, rows, tree: None })
            }
            Stage::Decode => {
                let after = self.cache.len() - prompt;
                let mut ids = self.written()[after..].to_vec();
                ids.extend(self.writer.iter().flat_map(|writer| writer.settled(&self.request)));
                Some(self.guessing_input(text, ids, self.next + after as u32)?)
            }
            Stage::Score(_, scoring) if scoring.wants_context() => {
                let context = scoring.context.clone();
                Some(self.context_input(text, &context)?)
            }
            Stage::Score(_, scoring) => {
                // The last candidate's tokens leave the cache.
                self.cache.truncate(prompt + scoring.context.len());
                let position = self.next + scoring.context.len() as u32;
                Some(input(text, scoring.fed(), position, Rows::All)?)
            }
            Stage::Waiting | Stage::Vision | Stage::Done(..) | Stage::Gone => None,
        };
        self.input = input;
        Ok(())
    }

    /// Decided tokens from a position on, and the guesses that follow them.
    fn guessing_input(
        &self,
        text: &TextModel,
        mut ids: Vec<u32>,
        position: u32,
    ) -> Result<Input, ModelError> {
        let (fed, guess) = (ids.len(), &self.guess);
        let depths = (0..guess.ids().len()).map(|place| fed + guess.depth(place));
        let positions = (0..fed).chain(depths).map(|at| [position + at as u32; 3]).collect();
        let tree = (!guess.is_chain()).then(|| {
            let guessed =
                guess.parents().iter().map(|parent| Some(parent.map_or(fed - 1, |parent| fed + parent)));
            (0..fed).map(|at| at.checked_sub(1)).chain(guessed).collect()
        });
        ids.extend_from_slice(guess.ids());
        Ok(Input { x: text.embed(&ids)?, positions, rows: Rows::All, tree })
    }

    /// Brings the cache to the prompt and the common part of what was written and `context`; the rest is to run.
    fn context_input(&mut self, text: &TextModel, context: &[u32]) -> Result<Input, ModelError> {
        let prompt = self.prompt.ids.len();
        let last = prompt + context.len() - 1;
        let common = self.written().iter().zip(context).take_while(|(a, b)| a == b).count();
        self.cache.truncate(last.min(prompt + common));
        let have = self.cache.len();
        if have >= prompt {
            let after = have - prompt;
            return input(text, &context[after..], self.next + after as u32, Rows::Last);
        }
        // Only the prompt's last token is missing; a template's prompt ends in text.
        if self.prompt.images.iter().any(|image| self.needs(image)) {
            return Err(ModelError::Prompt("candidates cannot follow an image".to_owned()));
        }
        let positions = self.prompt.positions[have..].to_vec();
        Ok(Input { x: text.embed(&self.prompt.ids[have..])?, positions, rows: Rows::Last, tree: None })
    }

    /// Embeddings of a stretch of the prompt, images included: `[end - start, hidden]`
    fn embed(&self, text: &TextModel, start: usize, end: usize) -> Result<Tensor, ModelError> {
        let x = text.embed(&self.prompt.ids[start..end])?;
        for (image, embedding) in self.prompt.images.iter().zip(&self.embeds) {
            let (from, to) = (image.at.max(start), (image.at + image.tokens).min(end));
            if let Some(embedding) = embedding
                && from < to
            {
                let rows =
                    embedding.narrow(0, from - image.at, to - from)?.contiguous()?.to_dtype(x.dtype())?;
                // In place: `x` was made just now and has no other reader.
                x.slice_set(&rows, 0, from - start)?;
            }
        }
        Ok(x)
    }

    /// Tokens written so far.
    pub(crate) fn written(&self) -> &[u32] {
        match (&self.writer, &self.stage) {
            (Some(writer), _) => writer.ids(),
            (None, Stage::Score(written, _) | Stage::Done(written, _)) => &written.ids,
            _ => &[],
        }
    }

    /// What was prepared: embeddings `[tokens, hidden]` and positions.
    pub(crate) fn input(&self) -> Option<(&Tensor, &[Position])> {
        self.input.as_ref().map(|input| (&input.x, input.positions.as_slice()))
    }

    /// Rows of logits that this step will give it.
    pub(crate) fn rows(&self) -> usize {
        self.input.as_ref().map_or(0, |input| match input.rows {
            Rows::None => 0,
            Rows::Last => 1,
            Rows::All => input.positions.len(),
        })
    }

    /// The prepared tokens with the cache that they run in.
    pub(crate) fn span(&mut self) -> Option<Span<'_>> {
        let input = self.input.as_ref()?;
        Some(Span {
            cache: &mut self.cache,
            tokens: input.positions.len(),
            rows: input.rows,
            tree: input.tree.as_deref(),
        })
    }

    /// Takes the logits of the rows that it wanted, `vocab` to a row.
    ///
    /// # Errors
    /// Where they are not finite, or a text cannot be told.
    pub(crate) fn advance(&mut self, logits: &[f32], vocab: usize) -> Result<(), ModelError> {
        match &mut self.stage {
            // More of the prompt is to come.
            Stage::Prefill if logits.is_empty() => Ok(()),
            Stage::Prefill => {
                self.times.prefill_ms = self.lap();
                self.embeds.clear();
                self.stage = Stage::Decode;
                self.write(logits, vocab)
            }
            Stage::Decode => self.write(logits, vocab),
            Stage::Score(_, scoring) => {
                if scoring.wants_context() {
                    scoring.take_context(logits)?;
                } else {
                    scoring.take_candidate(logits, vocab)?;
                }
                self.end_scoring();
                Ok(())
            }
            Stage::Waiting | Stage::Vision | Stage::Done(..) | Stage::Gone => Ok(()),
        }
    }

    /// Writes what the rows decide, as far as they follow from what was decided before them, and ends the output where
    /// a token was the last.
    fn write(&mut self, logits: &[f32], vocab: usize) -> Result<(), ModelError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let guess = std::mem::take(&mut self.guess);
        let rows: Vec<&[f32]> = logits.chunks_exact(vocab).collect();
        let fed = rows.len() - guess.ids().len();
        let mut last = None;
        for row in &rows[..fed] {
            last = writer.take(row, &self.request)?;
        }
        let (mut parent, mut path) = (None, Vec::new());
        while let (false, Some(place)) = (writer.is_finished(), last.and_then(|id| guess.child(parent, id))) {
            path.push(place);
            parent = Some(place);
            last = writer.take(rows[fed + place], &self.request)?;
        }
        if let (Some(speculator), false) = (&self.speculator, guess.is_empty()) {
            let missed = !writer.is_finished() && guess.goes_on(parent);
            speculator.tally.count(guess.ids().len(), path.len(), missed);
            let start = self.cache.len() - rows.len();
            let kept: Vec<usize> = (0..fed).chain(path.into_iter().map(|place| fed + place)).collect();
            self.cache.keep(start, &kept)?;
        }
        if !writer.is_finished() {
            return Ok(());
        }
        self.speculator = None;
        // What was settled may have run past the end.
        self.cache.truncate(self.prompt.ids.len() + writer.ids().len());
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let tokenizer = writer.tokenizer();
        let written = writer.finish()?;
        self.stage = match &self.request.score {
            Some(score) => {
                let scoring = Scoring::new(&written, score, &tokenizer)?;
                Stage::Score(written, scoring)
            }
            None => Stage::Done(written, None),
        };
        Ok(())
    }

    fn end_scoring(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Gone) {
            Stage::Score(written, scoring) => match scoring.scores() {
                Some(scores) => {
                    self.cache.truncate(self.prompt.ids.len() + scoring.kept);
                    Stage::Done(written, Some(scores))
                }
                None => Stage::Score(written, scoring),
            },
            other => other,
        };
    }

    /// Whether the answer is ready.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done(..))
    }

    /// Takes it apart once it is done.
    pub(crate) fn complete(mut self) -> Option<Completed> {
        self.times.generate_ms = self.lap();
        let mut keys = std::mem::take(&mut self.prompt.keys);
        keys.extend(self.written().iter().copied().map(text_key));
        keys.truncate(self.cache.len());
        let Stage::Done(Written { text, tokens, finish, .. }, scores) = self.stage else { return None };
        let visual: usize = self.prompt.images.iter().map(|image| image.tokens).sum();
        let ended = finish == TurnFinish::EndOfTurn;
        let counts = TokenCounts {
            text: (self.prompt.ids.len() - visual) as u64,
            visual: visual as u64,
            reused: self.reused as u64,
            encoded: self.encoded as u64,
            generated: tokens.len() as u64 + u64::from(ended),
        };
        let generation = Generation { text, tokens, finish, counts, times: self.times, scores };
        Some(Completed { keys, cache: self.cache, generation, reply: self.reply? })
    }

    /// Ends it with an error; its memory is free at once.
    pub(crate) fn fail(&mut self, error: VlmError) {
        self.stage = Stage::Gone;
        self.cache.truncate(0);
        self.input = None;
        self.speculator = None;
        self.embeds.clear();
        if let Some(reply) = self.reply.take() {
            // A caller that went away does not want it.
            let _ = reply.send(Err(error));
        }
    }

    /// Milliseconds since the last lap.
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.since, now)).as_secs_f64() * 1e3
    }
}

/// Text tokens from a position on.
fn input(text: &TextModel, ids: &[u32], position: u32, rows: Rows) -> Result<Input, ModelError> {
    let positions = (position..).take(ids.len()).map(|at| [at; 3]).collect();
    Ok(Input { x: text.embed(ids)?, positions, rows, tree: None })
}
