//! The page of one trace: question, answer, evidence, time line, and every round with its frames and texts.

use serde::Serialize;
use spectemp_types::{
    Chooser, FrameRef, ModelRevision, Question, Round, TimeSpan, Trace, Turn, TurnFinish, TurnKind, TurnRole,
    Verdict,
};

use crate::{
    base64,
    html::{PageError, render},
    marks::{Piece, pieces},
    stage_view::StageView,
    text::{bytes, clock, count, duration, fallback, seconds},
    timeline::{Strip, Tick, ticks},
};

/// A small picture of a frame of the trace.
#[derive(Clone, Copy, Debug)]
pub struct Thumbnail<'a> {
    /// The frame's time, as in its [`FrameRef`].
    pub pts_s: f64,
    /// A PNG file.
    pub png: &'a [u8],
}

/// The page of `trace`, whole in itself. A frame without a thumbnail is shown as an empty box with its time.
///
/// # Errors
/// [`PageError::Template`]: a fault of this program.
pub fn trace_html(trace: &Trace, thumbnails: &[Thumbnail<'_>]) -> Result<String, PageError> {
    render("trace.html", &Page::new(trace, thumbnails))
}

#[derive(Serialize)]
struct Page<'a> {
    trace: &'a Trace,
    choices: Vec<Choice<'a>>,
    confidence: String,
    evidence: Vec<EvidenceView>,
    facts: Vec<[String; 2]>,
    settings: Vec<[String; 2]>,
    totals: Vec<[String; 2]>,
    ticks: Vec<Tick>,
    rounds: Vec<RoundView>,
    stages: Option<StageView>,
}

#[derive(Serialize)]
struct Choice<'a> {
    letter: char,
    text: &'a str,
    chosen: bool,
}

#[derive(Serialize)]
struct EvidenceView {
    span: String,
    frames: Vec<String>,
}

#[derive(Serialize)]
struct RoundView {
    no: u32,
    span: String,
    strip: Strip,
    chosen_by: &'static str,
    verdict: String,
    answered: bool,
    dense: Option<DenseView>,
    frames: Vec<FrameView>,
    turns: Vec<TurnView>,
    notes: Vec<String>,
    stages: Vec<Stage>,
    figures: Vec<[String; 2]>,
}

#[derive(Serialize)]
struct DenseView {
    strip: Strip,
    ticks: Vec<Tick>,
    text: String,
}

#[derive(Serialize)]
struct FrameView {
    time: String,
    label: String,
    detail: String,
    keyframe: bool,
    /// Base64 of a PNG file.
    png: Option<String>,
}

#[derive(Serialize)]
struct TurnView {
    role: &'static str,
    kind: Option<&'static str>,
    pieces: Vec<Piece>,
    figures: String,
    cut: bool,
}

#[derive(Serialize)]
struct Stage {
    name: &'static str,
    text: String,
    /// Percent of the round.
    share: String,
}

impl<'a> Page<'a> {
    fn new(trace: &'a Trace, thumbnails: &[Thumbnail<'_>]) -> Self {
        let video = TimeSpan { start_s: 0.0, end_s: trace.video.duration_s };
        Self {
            trace,
            choices: choices(&trace.spec.question, trace.answer.choice),
            confidence: format!("{:.0} %", 100.0 * trace.answer.confidence),
            evidence: evidence(trace),
            facts: facts(trace),
            settings: settings(trace),
            totals: totals(trace),
            ticks: ticks(video),
            rounds: trace.rounds.iter().map(|round| RoundView::new(round, video, thumbnails)).collect(),
            stages: StageView::of(&trace.rounds),
        }
    }
}

fn choices(question: &Question, chosen: Option<char>) -> Vec<Choice<'_>> {
    let choice = |(i, text)| {
        let letter = Question::letter(i);
        Choice { letter, text, chosen: chosen == Some(letter) }
    };
    question.choices.iter().map(String::as_str).enumerate().map(choice).collect()
}

pub(crate) fn span_text(span: TimeSpan) -> String {
    format!("{} – {}", clock(span.start_s), clock(span.end_s))
}

fn evidence(trace: &Trace) -> Vec<EvidenceView> {
    let view = |evidence: &spectemp_types::Evidence| EvidenceView {
        span: span_text(TimeSpan { start_s: evidence.start_s, end_s: evidence.end_s }),
        frames: evidence.frames_s.iter().map(|time| clock(*time)).collect(),
    };
    trace.answer.evidence.iter().map(view).collect()
}

fn facts(trace: &Trace) -> Vec<[String; 2]> {
    let model = |model: &ModelRevision| format!("{} ({})", model.name, model.revision);
    let video = &trace.video;
    let mut facts = vec![
        ["video".to_owned(), video.uri.clone()],
        [
            "size".to_owned(),
            format!(
                "{} × {} px, {}, {}",
                video.width,
                video.height,
                clock(video.duration_s),
                bytes(video.bytes)
            ),
        ],
        ["version (ETag)".to_owned(), video.etag.clone().unwrap_or_else(|| "none given".to_owned())],
        ["job".to_owned(), format!("{} ({})", trace.spec.id, trace.job_id)],
        ["target".to_owned(), model(&trace.target)],
    ];
    facts.extend(trace.draft.as_ref().map(|draft| ["draft".to_owned(), model(draft)]));
    facts
}

fn settings(trace: &Trace) -> Vec<[String; 2]> {
    let Ok(serde_json::Value::Object(map)) = serde_json::to_value(&trace.spec.plan.settings) else {
        return Vec::new();
    };
    let plain = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    map.into_iter().map(|(name, value)| [name, plain(value)]).collect()
}

fn totals(trace: &Trace) -> Vec<[String; 2]> {
    let totals = &trace.totals;
    let row = |name: &str, value: String| [name.to_owned(), value];
    let (tokens, times) = (totals.tokens, totals.times);
    let spent = times.sum_ms();
    vec![
        row("rounds", totals.rounds.to_string()),
        row("frames seen by the target", count(totals.target_frames.into())),
        row("frames seen by the draft", count(totals.draft_frames.into())),
        row(
            "tokens",
            format!(
                "{} visual, {} text, {} reused, {} written",
                count(tokens.visual),
                count(tokens.text),
                count(tokens.reused),
                count(tokens.generated)
            ),
        ),
        row(
            "read",
            format!(
                "{} of {} in {} requests",
                bytes(totals.io.bytes),
                bytes(trace.video.bytes),
                count(totals.io.requests)
            ),
        ),
        row("time", duration(spent)),
    ]
}

impl RoundView {
    fn new(round: &Round, video: TimeSpan, thumbnails: &[Thumbnail<'_>]) -> Self {
        Self {
            no: round.no,
            span: span_text(round.span),
            strip: Strip::of_round(round, video),
            chosen_by: chosen_by(round.chosen_by),
            verdict: verdict(&round.verdict),
            answered: matches!(round.verdict, Verdict::Answer { .. }),
            dense: dense(round),
            frames: round.frames.iter().map(|frame| FrameView::new(frame, thumbnails)).collect(),
            turns: round.turns.iter().map(TurnView::new).collect(),
            notes: round
                .fallbacks
                .iter()
                .map(|f| fallback(f).to_owned())
                .chain(round.warnings.clone())
                .collect(),
            stages: stages(round),
            figures: figures(round),
        }
    }
}

pub(crate) fn chosen_by(chooser: Chooser) -> &'static str {
    match chooser {
        Chooser::Uniform => "uniform frames",
        Chooser::Draft => "frames chosen by the draft",
        Chooser::UniformFallback => "uniform frames, because the draft's choice could not be used",
        Chooser::None => "no new frames",
    }
}

pub(crate) fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Answer { text, choice: Some(letter), .. } => format!("answer {letter}: {text}"),
        Verdict::Answer { text, .. } => format!("answer: {text}"),
        Verdict::Segment { span } => format!("look at {}", span_text(*span)),
        Verdict::Nothing => "nothing that could be read".to_owned(),
    }
}

fn dense(round: &Round) -> Option<DenseView> {
    let sample = round.dense.as_ref()?;
    let lowered = if sample.lowered { ", lowered to meet the cap" } else { "" };
    Some(DenseView {
        strip: Strip::of_segment(round)?,
        ticks: ticks(round.span),
        text: format!(
            "The draft saw {} frames, {} per second{lowered}",
            sample.frames.len(),
            seconds(sample.fps)
        ),
    })
}

impl FrameView {
    fn new(frame: &FrameRef, thumbnails: &[Thumbnail<'_>]) -> Self {
        let thumbnail = thumbnails.iter().find(|thumbnail| (thumbnail.pts_s - frame.pts_s).abs() < 5e-4);
        Self {
            time: clock(frame.pts_s),
            label: frame.label.clone(),
            detail: format!(
                "asked for {} s, shown at {} s ({} s in the container)",
                seconds(frame.requested_s),
                seconds(frame.pts_s),
                seconds(frame.stream_pts_s)
            ),
            keyframe: frame.keyframe,
            png: thumbnail.map(|thumbnail| base64::encode(thumbnail.png)),
        }
    }
}

impl TurnView {
    fn new(turn: &Turn) -> Self {
        let tokens = turn.tokens;
        Self {
            role: role(turn.role),
            kind: kind(turn.kind),
            pieces: pieces(&turn.text),
            figures: format!(
                "{} visual, {} text, {} reused, {} written",
                count(tokens.visual),
                count(tokens.text),
                count(tokens.reused),
                count(tokens.generated)
            ),
            cut: turn.finish == TurnFinish::Length,
        }
    }
}

pub(crate) fn role(role: TurnRole) -> &'static str {
    match role {
        TurnRole::Target => "target",
        TurnRole::Draft => "draft",
    }
}

pub(crate) fn kind(kind: TurnKind) -> Option<&'static str> {
    match kind {
        TurnKind::Regular => None,
        TurnKind::Reminder => Some("reminded of the format"),
        TurnKind::Final => Some("final answer demanded"),
    }
}

fn stages(round: &Round) -> Vec<Stage> {
    let times = round.times;
    let stages = [
        ("fetch", times.fetch_ms),
        ("decode", times.decode_ms),
        ("vision", times.vision_ms),
        ("prefill", times.prefill_ms),
        ("generate", times.generate_ms),
    ];
    // The last has no colour: it is the part of the bar that stays empty.
    let waited = (times.wait_ms > 0.0).then_some(("wait", times.wait_ms));
    let share = |ms: f64| seconds(100.0 * ms / times.sum_ms().max(f64::MIN_POSITIVE));
    let stage = |(name, ms)| Stage { name, text: duration(ms), share: share(ms) };
    stages.into_iter().chain(waited).map(stage).collect()
}

fn figures(round: &Round) -> Vec<[String; 2]> {
    let (io, tokens) = (round.io, round.tokens());
    let row = |name: &str, value: String| [name.to_owned(), value];
    let mut rows = vec![
        row("read", format!("{} in {} requests", bytes(io.bytes), count(io.requests))),
        row("decoded frames", count(io.decoded_frames)),
        row("tokens in", count(tokens.visual + tokens.text)),
        row("of these reused", count(tokens.reused)),
        row("visual tokens encoded", count(tokens.encoded)),
        row("tokens out", count(tokens.generated)),
    ];
    if io.full_scan {
        rows.push(row("full scan", "yes".to_owned()));
    }
    rows
}
