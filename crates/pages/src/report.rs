//! The demonstration's report: accuracy by length and strategy as a plot with intervals and as a table, what was read
//! and how long it took, and every answer with a link to its trace.

use serde::Serialize;

use crate::{
    html::{PageError, render},
    text::bytes,
};

/// What the demonstration came to.
#[derive(Clone, Debug, Serialize)]
pub struct DemoReport {
    /// When it was made, as text.
    pub made: String,
    /// What was asked of which archive, in a sentence or two.
    pub summary: String,
    /// The confidence of the intervals, in percent.
    pub interval_percent: u32,
    /// One cell for each length and strategy: lengths in rising order, and in each the strategies in the same order.
    pub cells: Vec<DemoCell>,
    /// Every question's answers.
    pub answers: Vec<DemoAnswer>,
    /// How to go on: commands that a user can run.
    pub commands: Vec<String>,
}

/// One strategy on videos of one length.
#[derive(Clone, Debug, Serialize)]
pub struct DemoCell {
    /// The length, as a reader wants it: `1–3 min`.
    pub length: String,
    /// The strategy.
    pub strategy: String,
    /// Questions asked.
    pub questions: u32,
    /// Questions answered rightly.
    pub right: u32,
    /// The accuracy's interval, 0 to 1.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Frames that the target saw, per question.
    pub frames: f64,
    /// Bytes read, per question.
    pub bytes: f64,
    /// Seconds of work, per question.
    pub seconds: f64,
}

/// One answer.
#[derive(Clone, Debug, Serialize)]
pub struct DemoAnswer {
    /// The video.
    pub video: String,
    /// Its length in seconds.
    pub seconds: u32,
    /// The question.
    pub question: String,
    /// The right answer.
    pub expected: String,
    /// Who was asked.
    pub strategy: String,
    /// What came, or the error.
    pub got: String,
    /// Whether it is right.
    pub right: bool,
    /// Where the trace's page lies, relative to the report.
    pub trace: Option<String>,
}

/// The report as a page, whole in itself.
///
/// # Errors
/// [`PageError::Template`]: a fault of this program.
pub fn demo_report_html(report: &DemoReport) -> Result<String, PageError> {
    render("report.html", &Page::new(report))
}

#[derive(Serialize)]
struct Page<'a> {
    report: &'a DemoReport,
    plot: Plot,
    rows: Vec<Row<'a>>,
    answers: Vec<AnswerRow<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    cell: &'a DemoCell,
    first: bool,
    accuracy: String,
    interval: String,
    frames: String,
    bytes: String,
    seconds: String,
}

#[derive(Serialize)]
struct AnswerRow<'a> {
    answer: &'a DemoAnswer,
    href: Option<String>,
}

#[derive(Serialize)]
struct Plot {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    lines: Vec<GridLine>,
    chance_y: f64,
    groups: Vec<Group>,
    points: Vec<Point>,
    legend: Vec<Legend>,
}

#[derive(Serialize)]
struct GridLine {
    y: f64,
    text: String,
}

#[derive(Serialize)]
struct Group {
    x: f64,
    text: String,
}

#[derive(Serialize)]
struct Point {
    series: usize,
    x: f64,
    y: f64,
    low: f64,
    high: f64,
    title: String,
}

#[derive(Serialize)]
struct Legend {
    series: usize,
    x: f64,
    text: String,
}

impl<'a> Page<'a> {
    fn new(report: &'a DemoReport) -> Self {
        Self {
            report,
            plot: Plot::new(&report.cells),
            rows: rows(&report.cells),
            answers: answers(&report.answers),
        }
    }
}

fn accuracy(cell: &DemoCell) -> f64 {
    f64::from(cell.right) / f64::from(cell.questions.max(1))
}

fn rows(cells: &[DemoCell]) -> Vec<Row<'_>> {
    let row = |(i, cell): (usize, _)| Row {
        cell,
        first: i == 0 || cells[i - 1].length != cell.length,
        accuracy: format!("{:.2}", accuracy(cell)),
        interval: format!("{:.2} – {:.2}", cell.low, cell.high),
        frames: format!("{:.1}", cell.frames),
        bytes: bytes(cell.bytes.max(0.0) as u64),
        seconds: format!("{:.2}", cell.seconds),
    };
    cells.iter().enumerate().map(row).collect()
}

fn answers(answers: &[DemoAnswer]) -> Vec<AnswerRow<'_>> {
    // Links lead to files beside the report and nowhere else.
    let local = |link: &&String| !link.contains(':') && !link.starts_with('/') && !link.contains("..");
    answers
        .iter()
        .map(|answer| AnswerRow { answer, href: answer.trace.as_ref().filter(local).cloned() })
        .collect()
}

/// A guess is one digit of ten.
const CHANCE: f64 = 0.1;

impl Plot {
    fn new(cells: &[DemoCell]) -> Self {
        let (width, height, left, right, top, bottom) = (720.0, 300.0, 44.0, 708.0, 36.0, 262.0);
        let y = |share: f64| bottom - share.clamp(0.0, 1.0) * (bottom - top);
        let (lengths, strategies) = (names(cells, |cell| &cell.length), names(cells, |cell| &cell.strategy));
        let group = (right - left) / lengths.len().max(1) as f64;
        let step = (group * 0.5 / strategies.len().max(1) as f64).min(40.0);
        let centre = |index: usize| left + (index as f64 + 0.5) * group;
        let point = |cell: &DemoCell| {
            let length = lengths.iter().position(|name| *name == cell.length)?;
            let series = strategies.iter().position(|name| *name == cell.strategy)?;
            let shift = (series as f64 - (strategies.len() as f64 - 1.0) / 2.0) * step;
            Some(Point {
                series,
                x: centre(length) + shift,
                y: y(accuracy(cell)),
                low: y(cell.low),
                high: y(cell.high),
                title: format!("{}, {}: {} of {}", cell.strategy, cell.length, cell.right, cell.questions),
            })
        };
        let grid = |percent: u32| GridLine { y: y(f64::from(percent) / 100.0), text: format!("{percent} %") };
        let mut x = left;
        let legend = strategies.iter().enumerate().map(|(series, text)| {
            let entry = Legend { series, x, text: text.to_string() };
            x += 40.0 + 7.5 * text.chars().count() as f64;
            entry
        });
        Self {
            legend: legend.collect(),
            lines: [0, 25, 50, 75, 100].map(grid).into(),
            chance_y: y(CHANCE),
            groups: lengths
                .iter()
                .enumerate()
                .map(|(i, text)| Group { x: centre(i), text: text.to_string() })
                .collect(),
            points: cells.iter().filter_map(point).collect(),
            width,
            height,
            left,
            right,
            top,
            bottom,
        }
    }
}

/// The different names, in the order in which they first come.
fn names<'a>(cells: &'a [DemoCell], of: impl Fn(&'a DemoCell) -> &'a String) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for cell in cells {
        let name = of(cell).as_str();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
