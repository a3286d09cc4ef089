//! When a constrained turn must come to its end. Every token holds at least one byte, so that bytes still to be written
//! bound the tokens still needed. What is open-ended is closed in time: a thought so that the longest ending still
//! fits behind it, an answer so that its closing tag does. Since neither holds a `<`, closing means: only tokens that
//! begin with one.

use spectemp_engine::{AnswerForm, Ending, Grammar, Request, THOUGHT_CLOSES, THOUGHT_OPENS};

/// Most bytes of a character. Of one that was begun, all but one may be missing.
const CHARACTER: usize = 4;

/// One turn's budget.
#[derive(Debug)]
pub(super) struct Budget {
    /// Most tokens of the thought.
    think_tokens: usize,
    /// Tokens written inside the thought.
    thought: usize,
    /// Bytes that what follows the thought may need, its closing tag included.
    after_thought: usize,
    /// Bytes that what follows an answer may need.
    after_answer: usize,
    /// Bytes written so far.
    bytes: usize,
    /// `<` among them: one opens the thought, two close it, three open what follows.
    opened: usize,
}

impl Budget {
    pub(super) fn new(grammar: &Grammar, request: &Request) -> Self {
        let ending = grammar.endings.iter().map(longest).max().unwrap_or(0);
        let after_answer = grammar.endings.iter().map(after_answer).max().unwrap_or(0);
        Self {
            think_tokens: request.think_tokens as usize,
            thought: 0,
            after_thought: CHARACTER - 1 + THOUGHT_CLOSES.len() + ending,
            after_answer: CHARACTER - 1 + after_answer,
            bytes: 0,
            opened: 0,
        }
    }

    /// Whether what is open must be closed, where `left` tokens may still be written.
    pub(super) fn must_close(&self, left: usize) -> bool {
        match self.opened {
            1 => self.thought >= self.think_tokens || left <= self.after_thought,
            2 => false,
            _ => left <= self.after_answer,
        }
    }

    /// Counts a token that was written.
    pub(super) fn count(&mut self, bytes: &[u8]) {
        self.thought += usize::from(self.opened == 1 && self.bytes >= THOUGHT_OPENS.len());
        self.bytes += bytes.len();
        self.opened += bytes.iter().filter(|&&byte| byte == b'<').count();
    }
}

/// Bytes of the longest way to end, a free answer cut to one character.
fn longest(ending: &Ending) -> usize {
    ending.pieces().iter().map(|piece| piece.longest().unwrap_or(CHARACTER)).sum()
}

/// Bytes from the end of a free answer on.
fn after_answer(ending: &Ending) -> usize {
    match ending {
        Ending::Answer(AnswerForm::Free) | Ending::AnswerAndGlue { answer: AnswerForm::Free, .. } => {
            longest(ending) - "<answer>".len() - CHARACTER
        }
        _ => 0,
    }
}
