//! A trace for a terminal: plain text, no escape sequences, at most the given width where text can be broken.

use std::fmt::Write;

use spectemp_types::{FrameRef, Question, Round, TimeSpan, Trace, Turn, TurnFinish};

use crate::{
    stage_text::chart_text,
    text::{bytes, clock, duration, fallback, harmless, seconds},
    trace::{chosen_by, kind, role, span_text, verdict},
};

/// The story of `trace` in lines of about `width` characters (at least 40).
pub fn trace_text(trace: &Trace, width: usize) -> String {
    let mut page = Page { text: String::new(), width: width.max(40) };
    page.head(trace);
    for round in &trace.rounds {
        page.round(round, trace.video.duration_s);
    }
    if trace.rounds.iter().any(|round| !round.timeline.is_empty()) {
        page.text.push('\n');
        page.stages(&trace.rounds);
    }
    page.foot(trace);
    page.text
}

/// The stage time line of `rounds` in lines of about `width` characters (at least 40); empty where they tell none.
pub fn stages_text(rounds: &[Round], width: usize) -> String {
    let mut page = Page { text: String::new(), width: width.max(40) };
    page.stages(rounds);
    page.text
}

struct Page {
    text: String,
    width: usize,
}

impl Page {
    /// One line, broken between words, further lines indented by `indent`.
    fn line(&mut self, indent: usize, text: &str) {
        for line in text.lines() {
            let mut column = 0;
            for word in line.split_inclusive(' ') {
                let length = word.trim_end().chars().count();
                if column > indent && column + length > self.width {
                    self.text.truncate(self.text.trim_end_matches(' ').len());
                    self.text.push('\n');
                    column = 0;
                }
                if column == 0 {
                    self.text.push_str(&" ".repeat(indent));
                    column = indent;
                }
                self.text.push_str(word);
                column += word.chars().count();
            }
            self.text.truncate(self.text.trim_end_matches(' ').len());
            self.text.push('\n');
        }
    }

    fn head(&mut self, trace: &Trace) {
        let question = &trace.spec.question;
        self.line(0, &format!("question    {}", harmless(&question.text)));
        for (i, choice) in question.choices.iter().enumerate() {
            self.line(12, &format!("{}  {}", Question::letter(i), harmless(choice)));
        }
        let letter = trace.answer.choice.map(|letter| format!("{letter}: ")).unwrap_or_default();
        let sure = 100.0 * trace.answer.confidence;
        self.line(0, &format!("answer      {letter}{} ({sure:.0} %)", harmless(&trace.answer.text)));
        for evidence in &trace.answer.evidence {
            let span = span_text(TimeSpan { start_s: evidence.start_s, end_s: evidence.end_s });
            let frames: Vec<String> = evidence.frames_s.iter().map(|time| clock(*time)).collect();
            self.line(0, &format!("evidence    {span}, frames at {}", frames.join(", ")));
        }
        let video = &trace.video;
        self.line(0, &format!("video       {}", harmless(&video.uri)));
        let etag = video.etag.as_deref().unwrap_or("no ETag");
        let size = format!(
            "{} x {} px, {}, {}",
            video.width,
            video.height,
            clock(video.duration_s),
            bytes(video.bytes)
        );
        self.line(12, &format!("{size}, {}", harmless(etag)));
        let models = [Some(("target", &trace.target)), trace.draft.as_ref().map(|draft| ("draft", draft))];
        for (role, model) in models.into_iter().flatten() {
            self.line(0, &format!("{role:<12}{} ({})", harmless(&model.name), harmless(&model.revision)));
        }
        self.line(
            0,
            &format!(
                "job         {} ({}), plan {}",
                harmless(&trace.spec.id),
                trace.job_id,
                trace.spec.plan.name
            ),
        );
    }

    fn round(&mut self, round: &Round, duration_s: f64) {
        self.text.push('\n');
        self.line(
            0,
            &format!("round {}     {}: {}", round.no, span_text(round.span), chosen_by(round.chosen_by)),
        );
        let bar = bar(round, duration_s, self.width.saturating_sub(14).clamp(20, 100));
        self.line(0, &format!("            {bar}"));
        if let Some(dense) = &round.dense {
            let lowered = if dense.lowered { ", lowered to meet the cap" } else { "" };
            self.line(
                12,
                &format!(
                    "draft saw {} frames, {} per second{lowered}",
                    dense.frames.len(),
                    seconds(dense.fps)
                ),
            );
        }
        if !round.frames.is_empty() {
            self.line(12, &format!("frames {}", frames(&round.frames)));
        }
        for turn in &round.turns {
            self.turn(turn);
        }
        for note in
            round.fallbacks.iter().map(|f| fallback(f)).chain(round.warnings.iter().map(String::as_str))
        {
            self.line(0, &format!("  ! {}", harmless(note)));
        }
        self.line(0, &format!("  => {}", harmless(&verdict(&round.verdict))));
        self.line(2, &round_figures(round));
    }

    fn turn(&mut self, turn: &Turn) {
        let cut = (turn.finish == TurnFinish::Length).then_some("cut at max_new_tokens");
        let notes: Vec<&str> = kind(turn.kind).into_iter().chain(cut).collect();
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        self.line(0, &format!("  {}{notes}", role(turn.role)));
        self.line(4, &harmless(&turn.text));
    }

    fn stages(&mut self, rounds: &[Round]) {
        let Some((lines, legend)) = chart_text(rounds, self.width) else { return };
        for line in lines {
            self.text.push_str(&line);
            self.text.push('\n');
        }
        self.line(12, &legend);
    }

    fn foot(&mut self, trace: &Trace) {
        let totals = &trace.totals;
        self.text.push('\n');
        let frames = format!(
            "{} frames seen by the target, {} by the draft",
            totals.target_frames, totals.draft_frames
        );
        self.line(0, &format!("totals      {} rounds, {frames}", totals.rounds));
        let tokens = totals.tokens;
        self.line(
            12,
            &format!(
                "{} visual and {} text tokens in, {} of them reused, {} out",
                tokens.visual, tokens.text, tokens.reused, tokens.generated
            ),
        );
        let io = totals.io;
        let scan = if io.full_scan { ", the whole object scanned" } else { "" };
        self.line(
            12,
            &format!(
                "{} of {} read in {} requests, {} frames decoded{scan}",
                bytes(io.bytes),
                bytes(trace.video.bytes),
                io.requests,
                io.decoded_frames
            ),
        );
    }
}

/// The video as a line: `-` for what was not looked at, `=` for the segment, `o` for frames that the target saw.
fn bar(round: &Round, duration_s: f64, width: usize) -> String {
    let place = |time: f64| (time / duration_s.max(f64::MIN_POSITIVE) * width as f64) as usize;
    let segment = place(round.span.start_s)..place(round.span.end_s).max(place(round.span.start_s) + 1);
    let mut cells: Vec<char> =
        (0..width).map(|cell| if segment.contains(&cell) { '=' } else { '-' }).collect();
    for frame in &round.frames {
        if let Some(cell) = cells.get_mut(place(frame.pts_s).min(width - 1)) {
            *cell = 'o';
        }
    }
    format!("|{}|", cells.into_iter().collect::<String>())
}

fn frames(frames: &[FrameRef]) -> String {
    let frame = |frame: &FrameRef| {
        let star = if frame.keyframe { "*" } else { "" };
        format!("{}{star}", clock(frame.pts_s))
    };
    let listed: Vec<String> = frames.iter().map(frame).collect();
    let note = if frames.iter().any(|frame| frame.keyframe) { " (* keyframe)" } else { "" };
    format!("{}{note}", listed.join(", "))
}

fn round_figures(round: &Round) -> String {
    let (times, tokens) = (round.times, round.tokens());
    let stages = [
        ("fetch", times.fetch_ms),
        ("decode", times.decode_ms),
        ("vision", times.vision_ms),
        ("prefill", times.prefill_ms),
        ("generate", times.generate_ms),
    ];
    let waited = (times.wait_ms > 0.0).then_some(("wait", times.wait_ms));
    let named = stages.into_iter().chain(waited).map(|(name, ms)| format!("{name} {}", duration(ms)));
    let mut text = named.collect::<Vec<_>>().join(", ");
    let input = tokens.visual + tokens.text;
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "; {} in {} requests; {input} tokens in, {} out",
        bytes(round.io.bytes),
        round.io.requests,
        tokens.generated
    );
    text
}
