//! Progress of a run on stderr: a bar with rate and time left on a terminal, plain lines otherwise.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use spectemp_worker::{Event, Outcome};
use tokio::sync::mpsc::UnboundedReceiver;

use super::words::{duration, plain};

/// Answers are told at most so often where there is no bar; errors always.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// How the jobs of a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// With an answer.
    pub(crate) answered: usize,
    /// With an error.
    pub(crate) failed: usize,
}

/// What is shown of a run.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    before: usize,
    tally: Tally,
    started: Instant,
    last_line: Option<Instant>,
}

impl Progress {
    /// For `total` jobs, `before` of which have ended earlier.
    pub(crate) fn new(total: usize, before: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64).with_position(before as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}") {
                bar.set_style(style);
            }
            bar.set_message("starting");
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, total, before, tally: Tally::default(), started: Instant::now(), last_line: None }
    }

    /// Shows what comes until nothing comes any more.
    pub(crate) async fn follow(mut self, mut events: UnboundedReceiver<Event>) -> Tally {
        while let Some(event) = events.recv().await {
            self.show(&event);
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.tally
    }

    fn show(&mut self, event: &Event) {
        match event {
            Event::Started { .. } | Event::Round { .. } => {}
            Event::Restarted { name, dropped, cause } => {
                self.line(&format!("{}: starts again without its {dropped} rounds: {cause}", name.id));
            }
            Event::Retry { name, error, after } => {
                self.line(&format!("{}: tried again in {}: {error}", name.id, duration(*after)));
            }
            Event::Ended { name, outcome } => self.ended(&name.id, outcome),
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done() as u64);
            bar.set_message(self.pace());
        }
    }

    fn ended(&mut self, id: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Answered(trace) => {
                self.tally.answered += 1;
                if self.bar.is_none() && self.line_is_due() {
                    let text =
                        format!("{id}: {} ({:.2})", plain(&trace.answer.text), trace.answer.confidence);
                    self.line(&format!("{}/{}  {text}  {}", self.done(), self.total, self.pace()));
                }
            }
            Outcome::Failed(error) => {
                self.tally.failed += 1;
                self.line(&format!("{id}: failed: {error}"));
            }
            Outcome::Lost => self.line(&format!("{id}: was cancelled or taken over")),
            Outcome::Released | Outcome::PutBack { .. } => {}
        }
    }

    fn done(&self) -> usize {
        self.before + self.tally.answered + self.tally.failed
    }

    /// Failures so far, jobs per second of this run, and the time that the rest will take at that rate.
    fn pace(&self) -> String {
        let ended = self.done() - self.before;
        let seconds = self.started.elapsed().as_secs_f64();
        let mut parts = Vec::new();
        if self.tally.failed > 0 {
            parts.push(format!("{} failed", self.tally.failed));
        }
        if ended > 0 && seconds > 0.0 {
            let left = self.total.saturating_sub(self.done());
            let left = Duration::from_secs_f64(left as f64 * seconds / ended as f64);
            parts.push(format!("{:.2} jobs/s", ended as f64 / seconds));
            parts.push(format!("{} left", duration(left)));
        }
        parts.join(", ")
    }

    fn line_is_due(&mut self) -> bool {
        let due = self.done() == self.total || self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if due {
            self.last_line = Some(Instant::now());
        }
        due
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}
