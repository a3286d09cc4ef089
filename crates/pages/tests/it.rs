//! The pages as snapshots, and what hostile texts may not do to them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use spectemp_pages::{DemoAnswer, DemoCell, DemoReport, Thumbnail, demo_report_html, trace_html, trace_text};
use spectemp_types::Trace;

/// A trace of three rounds with a reminder and a fallback.
fn trace() -> Trace {
    serde_json::from_str(include_str!("data/trace.json")).unwrap()
}

fn hostile() -> Trace {
    let mut trace = trace();
    let bad = "</pre><script>alert(1)</script>\u{1b}[31m\"'&<img src=x onerror=alert(1)>";
    trace.spec.question.text = bad.to_owned();
    trace.spec.question.choices = vec![bad.to_owned(), "b".to_owned()];
    trace.spec.id = bad.to_owned();
    trace.answer.text = bad.to_owned();
    trace.answer.choice = Some('A');
    trace.video.uri = bad.to_owned();
    trace.video.etag = Some(bad.to_owned());
    trace.target.name = bad.to_owned();
    for round in &mut trace.rounds {
        round.warnings.push(bad.to_owned());
        round.turns.iter_mut().for_each(|turn| turn.text.push_str(bad));
        round.frames.iter_mut().for_each(|frame| frame.label = bad.to_owned());
    }
    trace
}

fn report() -> DemoReport {
    let cell = |length: &str, strategy: &str, right, low, high| DemoCell {
        length: length.to_owned(),
        strategy: strategy.to_owned(),
        questions: 12,
        right,
        low,
        high,
        frames: 12.1,
        bytes: 250_000.0,
        seconds: 0.61,
    };
    let answer = |strategy: &str, got: &str, trace: Option<&str>| DemoAnswer {
        video: "0003-300s".to_owned(),
        seconds: 300,
        question: "What digit flashes in the red scene?".to_owned(),
        expected: "7".to_owned(),
        strategy: strategy.to_owned(),
        got: got.to_owned(),
        right: got == "7",
        trace: trace.map(str::to_owned),
    };
    DemoReport {
        made: "2026-01-01".to_owned(),
        summary: "24 questions about 24 videos.".to_owned(),
        interval_percent: 95,
        cells: vec![
            cell("1–5 min", "spectemp", 12, 0.76, 1.0),
            cell("1–5 min", "target-uniform", 5, 0.19, 0.68),
            cell("1–5 min", "uniform", 3, 0.09, 0.53),
            cell("5–20 min", "spectemp", 12, 0.76, 1.0),
            cell("5–20 min", "target-uniform", 2, 0.05, 0.45),
            cell("5–20 min", "uniform", 1, 0.01, 0.35),
        ],
        answers: vec![
            answer("spectemp", "7", Some("traces/0003-spectemp.html")),
            answer("uniform", "<em>4</em>", Some("javascript:alert(1)")),
            answer("uniform", "no answer", Some("../../etc/passwd")),
        ],
        commands: vec!["spectemp sql \"select answer from answers\"".to_owned()],
    }
}

#[test]
fn a_trace_reads_in_the_terminal() {
    insta::assert_snapshot!(trace_text(&trace(), 100));
}

#[test]
fn a_narrow_terminal_breaks_lines() {
    let text = trace_text(&trace(), 60);
    let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 60).collect();
    assert!(long.iter().all(|line| !line.trim().contains(' ')), "{long:#?}");
}

#[test]
fn a_terminal_gets_no_escape_sequences() {
    let text = trace_text(&hostile(), 100);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
    assert!(text.contains("\\u{1b}[31m"));
}

#[test]
fn a_page_holds_question_answer_rounds_and_pictures() {
    let png = [0x89, b'P', b'N', b'G'];
    let shown = trace();
    let first = shown.rounds[0].frames[0].pts_s;
    let page = trace_html(&shown, &[Thumbnail { pts_s: first, png: &png }]).unwrap();
    for part in [
        "What digit flashes in the red scene?",
        "Round 2",
        "data:image/png;base64,iVBORw==",
        "6:25",
        "&lt;think&gt;",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("data:image/png").count(), 1);
    insta::assert_snapshot!(page);
}

#[test]
fn a_page_escapes_hostile_texts_and_loads_nothing() {
    for page in [trace_html(&hostile(), &[]).unwrap(), demo_report_html(&report()).unwrap()] {
        let lower = page.to_lowercase();
        for bad in [
            "<script",
            "<img src=x",
            "<em>4",
            "href=\"javascript",
            "href=\"..",
            "http://",
            "https://",
            "url(",
            "<link",
        ] {
            assert!(!lower.contains(bad), "{bad}");
        }
        assert!(lower.contains("default-src 'none'"));
    }
}

#[test]
fn a_report_shows_every_cell() {
    let page = demo_report_html(&report()).unwrap();
    for cell in report().cells {
        assert!(page.contains(&format!("{}, {}: {} of 12", cell.strategy, cell.length, cell.right)));
    }
    assert!(page.contains("href=\"traces&#x2f;0003-spectemp.html\""));
    insta::assert_snapshot!(page);
}

#[test]
fn an_empty_report_is_a_page_too() {
    let empty = DemoReport { cells: Vec::new(), answers: Vec::new(), commands: Vec::new(), ..report() };
    assert!(demo_report_html(&empty).unwrap().contains("</html>"));
}
