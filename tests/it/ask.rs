//! `spectemp ask`: its contract on stdout, stderr and exit status.

use serde_json::Value;

use crate::support::{Place, model, pair, with_pair};

#[test]
fn ask_prints_one_json_object() {
    let place = Place::new();
    let videos = place.videos(&[64], 1);
    let video = videos[0].path.to_str().unwrap();
    let question = &videos[0].plan.questions[0];
    let pair = pair();
    let done = place.run(&with_pair(&["ask", video, &question.text, "--json"], &pair));
    assert_eq!(done.code, Some(0), "{}", done.stderr);

    let report: Value = serde_json::from_str(&done.stdout).expect("stdout is one JSON object");
    let mut keys: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["answer", "confidence", "evidence", "rounds", "totals"]);
    assert_eq!(report["answer"], question.answer.as_str());
    let confidence = report["confidence"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&confidence), "{confidence}");

    let evidence = &report["evidence"][0];
    let (start, end) = (evidence["start_s"].as_f64().unwrap(), evidence["end_s"].as_f64().unwrap());
    assert!(start < question.evidence.end_s && end > question.evidence.start_s, "{evidence} {question:?}");
    let frames: Vec<f64> =
        evidence["frames_s"].as_array().unwrap().iter().map(|at| at.as_f64().unwrap()).collect();
    assert!(!frames.is_empty() && frames.is_sorted());

    let rounds = report["rounds"].as_array().unwrap();
    assert_eq!(report["totals"]["rounds"], rounds.len());
    assert_eq!(rounds[0]["frames"].as_array().unwrap().len(), 10);
    assert!(done.stderr.contains("round 0"), "{}", done.stderr);

    let rows = place.sql("select id, batch, answer from answers");
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["batch"], &rows[0]["answer"]), (&"ask".into(), &report["answer"]));
    let shown = place.run(&["show", rows[0]["id"].as_str().unwrap()]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
}

#[test]
fn choices_are_answered_with_text_and_letter() {
    let place = Place::new();
    let videos = place.videos(&[64], 1);
    let video = videos[0].path.to_str().unwrap();
    let pair = pair();
    let args = ["ask", video, &videos[0].plan.questions[0].text, "--choice", "7", "--choice", "3", "--json"];
    let done = place.run(&with_pair(&args, &pair));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let pairs = [("7", "A"), ("3", "B")];
    let given = (report["answer"].as_str().unwrap(), report["choice"].as_str().unwrap());
    assert!(pairs.contains(&given), "{given:?}");
}

#[test]
fn people_read_rounds_answer_and_evidence() {
    let place = Place::new();
    let videos = place.videos(&[64], 1);
    let question = &videos[0].plan.questions[0];
    let pair = pair();
    let done = place.run(&with_pair(&["ask", videos[0].path.to_str().unwrap(), &question.text], &pair));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for wanted in
        ["round 0", &format!("answer      {}", question.answer), "confidence", "evidence", "frames at"]
    {
        assert!(done.stdout.contains(wanted), "{wanted:?} is missing:\n{}", done.stdout);
    }
}

#[test]
fn what_is_missing_is_said_with_exit_status_2() {
    let place = Place::new();
    let target = model("target");
    let cases: [(&[&str], &str); 7] = [
        (&["ask", "v.mp4", "Q?"], "--target"),
        (&["ask", "v.mp4", "Q?", "--target", &target], "--draft"),
        (&["ask", "v.mp4", "", "--target", &target], "question is empty"),
        (&["ask", "v.mp4", "Q?", "--choice", "a"], "1 choices"),
        (&["ask", "v.mp4", "Q?", "--plan", "paper"], "unknown plan \"paper\""),
        (&["ask", "v.mp4", "Q?", "--set", "frames=3"], "unknown setting \"frames\""),
        (&["ask", "ftp://h/v.mp4", "Q?"], "scheme \"ftp\""),
    ];
    for (args, wanted) in cases {
        let done = place.run(args);
        assert_eq!(done.code, Some(2), "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(wanted), "{args:?}: {}", done.stderr);
        assert_eq!(done.stdout, "", "{args:?}");
    }
    assert!(!place.path("home").join("ledger.sqlite").exists(), "nothing was begun");
}

#[test]
fn a_baseline_needs_no_draft_and_a_broken_video_is_named() {
    let place = Place::new();
    let videos = place.videos(&[64], 1);
    let target = model("target");
    let uniform = ["--target", &target, "--plan", "demo", "--set", "strategy=uniform", "--json"];
    let question = "What digit flashes in the red scene?";
    let video = videos[0].path.to_str().unwrap().to_owned();
    let done = place.run(&[&["ask", &video, question][..], &uniform].concat());
    assert_eq!(done.code, Some(0), "{}", done.stderr);

    let broken = place.write("broken.mp4", b"this is no video");
    for video in [broken.as_str(), "missing.mp4"] {
        let done = place.run(&[&["ask", video, question][..], &uniform].concat());
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        assert!(done.stderr.contains(video), "{}", done.stderr);
        assert_eq!(done.stdout, "");
    }
    assert_eq!(place.sql("select error from failures").len(), 2);
}
