//! Whether guessing pays: measured while it goes on, apart for each number of sequences that write together, since a batch
//! shares the pass over the weights among its sequences already. Both ways are tried; the faster one is kept, and the
//! other looked at again from time to time, ever less often while it goes on losing. What is written is the same either way.

use std::time::Duration;

use super::Piece;

/// Steps of each way that are tried first.
const TRIAL: u32 = 8;
/// Steps until the slower way is looked at again the first time, the last time, and for how long.
const FIRST_PAUSE: u32 = 64;
const LONGEST_PAUSE: u32 = 4096;
const LOOK: u32 = 4;
/// Sequences that are told apart; of more nobody guesses.
const MOST_SEQUENCES: usize = 16;
/// What a step leaves of the weight of those before it.
const KEEP: f64 = 0.95;
/// Tokens of a turn, before any was written.
const TURN: f64 = 64.0;

/// The measure of one model.
#[derive(Debug)]
pub(crate) struct Pace {
    crowds: [Crowd; MOST_SEQUENCES],
    /// Making a drafter for a sequence: seconds, and how many were made.
    starts: Mean,
    /// Tokens of a turn and how many turns.
    turns: Mean,
}

/// A weighted mean: the sums of what was counted, the latest counting most.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

/// So many sequences that write together.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    plain: Way,
    guessing: Way,
    /// Steps until the slower way is looked at, or, within a look, that are left of it.
    left: u32,
    looking: bool,
    pause: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Seconds per token.
    cost: Mean,
    steps: u32,
}

impl Default for Pace {
    fn default() -> Self {
        let crowd = Crowd {
            plain: Way::default(),
            guessing: Way::default(),
            left: FIRST_PAUSE,
            looking: false,
            pause: FIRST_PAUSE,
        };
        let turns = Mean { sum: TURN, weight: 1.0 };
        Self { crowds: [crowd; MOST_SEQUENCES], starts: Mean::default(), turns }
    }
}

impl Pace {
    /// Whether guesses are to be made in a step of so many writing sequences.
    pub(crate) fn wants_guesses(&self, sequences: usize) -> bool {
        let Some(crowd) = self.crowds.get(sequences.wrapping_sub(1)) else { return false };
        match (crowd.guessing.steps < TRIAL, crowd.plain.steps < TRIAL) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => self.guessing_is_faster(crowd) != crowd.looking,
        }
    }

    /// Counts a step of `sequences` that did nothing but write `tokens`; making drafters is not part of `took`.
    pub(crate) fn count_step(&mut self, sequences: usize, guessed: bool, took: Duration, tokens: usize) {
        let Some(crowd) = self.crowds.get(sequences.wrapping_sub(1)) else { return };
        let was_faster = self.guessing_is_faster(crowd);
        let mut crowd = *crowd;
        let way = if guessed { &mut crowd.guessing } else { &mut crowd.plain };
        way.cost.add(took.as_secs_f64(), tokens as f64);
        way.steps += 1;
        if crowd.guessing.steps >= TRIAL && crowd.plain.steps >= TRIAL {
            let changed = self.guessing_is_faster(&crowd) != was_faster;
            crowd.pass(changed);
        }
        self.crowds[sequences - 1] = crowd;
    }

    /// Counts a piece of the making of a drafter.
    pub(crate) fn count_piece(&mut self, piece: Piece) {
        self.starts.add(piece.took.as_secs_f64(), piece.share);
    }

    /// Counts a turn that is written.
    pub(crate) fn count_turn(&mut self, tokens: usize) {
        self.turns.add(tokens as f64, 1.0);
    }

    /// Making a drafter is spread over the tokens of a turn.
    fn guessing_is_faster(&self, crowd: &Crowd) -> bool {
        let start = self.starts.mean() / self.turns.mean().max(1.0);
        crowd.guessing.cost.mean() + start < crowd.plain.cost.mean()
    }
}

impl Crowd {
    /// A step on the way to the next look, or to its end.
    fn pass(&mut self, changed: bool) {
        if changed {
            (self.looking, self.left, self.pause) = (false, FIRST_PAUSE, FIRST_PAUSE);
            return;
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.looking = !self.looking;
            if self.looking {
                self.left = LOOK;
            } else {
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                self.left = self.pause;
            }
        }
    }
}

impl Mean {
    fn add(&mut self, sum: f64, weight: f64) {
        self.sum = self.sum * KEEP + sum;
        self.weight = self.weight * KEEP + weight;
    }

    /// 0 before anything was counted.
    fn mean(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Goes on for some steps with these times per token; gives how many of them guessed.
    fn run(pace: &mut Pace, steps: usize, (plain, guessing): (u64, u64), sequences: usize) -> usize {
        let mut guessed = 0;
        for _ in 0..steps {
            let guesses = pace.wants_guesses(sequences);
            guessed += usize::from(guesses);
            pace.count_step(sequences, guesses, ms(if guesses { guessing } else { plain }), 1);
        }
        guessed
    }

    #[test]
    fn the_faster_way_is_kept_and_the_other_looked_at_ever_less_often() {
        let mut pace = Pace::default();
        let looks = run(&mut pace, 10_000, (10, 13), 1);
        assert!((20..60).contains(&looks), "{looks}");
        let mut pace = Pace::default();
        let guessed = run(&mut pace, 10_000, (10, 7), 1);
        assert!((9_940..9_980).contains(&guessed), "{guessed}");
    }

    #[test]
    fn a_way_that_becomes_faster_is_found() {
        let mut pace = Pace::default();
        run(&mut pace, 300, (10, 13), 1);
        assert!(!pace.wants_guesses(1));
        let guessed = run(&mut pace, 3000, (10, 5), 1);
        assert!(guessed > 1500, "{guessed}");
    }

    #[test]
    fn each_number_of_sequences_has_its_own_measure_and_a_crowd_never_guesses() {
        let mut pace = Pace::default();
        run(&mut pace, 100, (10, 5), 1);
        run(&mut pace, 60, (10, 15), 4);
        assert!(pace.wants_guesses(1) && !pace.wants_guesses(4) && pace.wants_guesses(2));
        assert!(!pace.wants_guesses(0) && !pace.wants_guesses(17));
        pace.count_step(17, false, ms(1), 1);
    }

    #[test]
    fn making_a_drafter_must_pay_over_a_turn() {
        let mut pace = Pace::default();
        for _ in 0..4 {
            pace.count_piece(Piece { took: ms(160), share: 0.25 });
        }
        // 10 ms of each token for the start, at 64 tokens to a turn.
        run(&mut pace, 60, (10, 5), 1);
        assert!(!pace.wants_guesses(1));
        for _ in 0..100 {
            pace.count_turn(1000);
        }
        assert!(pace.wants_guesses(1));
    }
}
