//! `spectemp run`: files of jobs, results, and everything that may interrupt them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Place, jobs, model, pair, signal, with_pair};

/// Waits until `done` says so.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(120), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn log(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn bad_lines_and_broken_videos_do_not_stop_the_rest() {
    let place = Place::new();
    let videos = place.videos(&[64, 70], 1);
    let broken = place.write("broken.mp4", b"this is no video");
    let good = jobs(&videos);
    let question = "What digit flashes in the red scene?";
    let lines = [
        good[0].to_string(),
        String::new(),
        "{\"id\":".to_owned(),
        json!({ "id": "unknown", "video": broken, "question": question, "frames": 3 }).to_string(),
        json!({ "id": "broken", "video": broken, "question": question }).to_string(),
        good[0].to_string(),
        good[1].to_string(),
    ];
    let file = place.write("jobs.jsonl", lines.join("\n").as_bytes());
    let pair = pair();
    let args = with_pair(&["run", &file, "--results", "out"], &pair);
    let done = place.run(&args);
    assert_eq!(done.code, Some(1), "{}", done.stderr);

    let answers = place.results("out", "answers.jsonl");
    let given: Vec<_> = answers.iter().map(|answer| (&answer["id"], &answer["answer"])).collect();
    let truth = |video: usize| Value::from(videos[video].plan.questions[0].answer.as_str());
    assert_eq!(given, [(&json!("0-0"), &truth(0)), (&json!("1-0"), &truth(1))]);
    for answer in &answers {
        assert!(answer.get("rounds").is_none() && answer["totals"]["rounds"].is_u64(), "{answer}");
        assert!(answer["confidence"].is_f64() && answer["evidence"][0]["frames_s"].is_array(), "{answer}");
    }
    let errors = place.results("out", "errors.jsonl");
    let named: Vec<_> =
        errors.iter().map(|error| error.get("line").or(error.get("id")).unwrap().clone()).collect();
    assert_eq!(named, [json!(3), json!(4), json!(6), json!("broken")]);
    assert!(errors[1]["error"].as_str().unwrap().contains("`frames`"), "{errors:?}");
    assert!(errors[3]["error"].as_str().unwrap().contains("broken.mp4"), "{errors:?}");
    assert!(done.stderr.contains("line 3:"), "{}", done.stderr);
    let parquet = std::fs::read(place.path("out/answers.parquet")).unwrap();
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));

    // The same again: nothing is left to do, and no model is needed to say so.
    let again = place.run(&["run", &file, "--results", "out", "--plan", "demo"]);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    assert_eq!(place.results("out", "answers.jsonl"), answers);

    // The broken file is mended: only a retry tries it again.
    std::fs::copy(&videos[0].path, place.path("broken.mp4")).unwrap();
    let file =
        place.write_jobs("mended.jsonl", &[json!({ "id": "broken", "video": broken, "question": question })]);
    let args = with_pair(&["run", &file, "--results", "out"], &pair);
    assert_eq!(place.run(&args).code, Some(1));
    let retried = place.run(&[&args[..], &["--retry-failed"]].concat());
    assert_eq!(retried.code, Some(0), "{}", retried.stderr);
    assert_eq!(place.results("out", "answers.jsonl").len(), 3);
}

#[test]
fn the_same_id_with_other_content_is_refused_and_both_are_named() {
    let place = Place::new();
    let videos = place.videos(&[64], 2);
    let both = jobs(&videos);
    let pair = pair();
    let first = place.write_jobs("first.jsonl", &both[..1]);
    let done = place.run(&with_pair(&["run", &first, "--results", "out"], &pair));
    assert_eq!(done.code, Some(0), "{}", done.stderr);

    let mut other = both[1].clone();
    other["id"] = both[0]["id"].clone();
    let second = place.write_jobs("second.jsonl", &[other.clone()]);
    let done = place.run(&with_pair(&["run", &second, "--results", "out"], &pair));
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for job in [&both[0], &other] {
        assert!(done.stderr.contains(job["question"].as_str().unwrap()), "{}", done.stderr);
    }
    let elsewhere = place.run(&with_pair(&["run", &second, "--results", "elsewhere"], &pair));
    assert_eq!(elsewhere.code, Some(0), "another batch is another job: {}", elsewhere.stderr);
}

#[test]
fn no_line_leaves_the_prefix() {
    let place = Place::new();
    let videos = place.videos(&[64], 1);
    std::fs::create_dir(place.path("in")).unwrap();
    std::fs::rename(&videos[0].path, place.path("in/a.mp4")).unwrap();
    place.write("secret.mp4", b"secret");
    let job = |id: &str, video: &str| json!({ "id": id, "video": video, "question": "What digit flashes in the red scene?" });
    let secret = place.path("secret.mp4");
    let lines = [
        job("a", "a.mp4"),
        job("b", "../secret.mp4"),
        job("c", secret.to_str().unwrap()),
        job("d", "s3://b/a.mp4"),
    ];
    let file = place.write_jobs("jobs.jsonl", &lines);
    let pair = pair();
    let done = place.run(&with_pair(&["run", &file, "--videos", "in", "--results", "out"], &pair));
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert_eq!(place.results("out", "answers.jsonl").len(), 1);
    let errors = place.results("out", "errors.jsonl");
    assert_eq!(errors.iter().map(|error| error["line"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn a_dry_run_needs_no_model_and_does_nothing() {
    let place = Place::new();
    let videos = place.videos(&[64, 70], 2);
    let file = place.write_jobs("jobs.jsonl", &jobs(&videos));
    let done = place.run(&["run", &file, "--plan", "demo", "--dry-run"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for wanted in ["video-0.mp4", "64.0", "2 of 2 videos found", "4 jobs"] {
        assert!(done.stdout.contains(wanted), "{wanted:?} is missing:\n{}", done.stdout);
    }
    assert!(!place.path("home").exists() && !place.path("jobs.results").exists());

    std::fs::remove_file(&videos[0].path).unwrap();
    let done = place.run(&["run", &file, "--plan", "demo", "--dry-run"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stdout.contains("1 of 2 videos found"), "{}", done.stdout);
}

#[test]
fn wrong_calls_end_with_2() {
    let place = Place::new();
    let file = place.write("jobs.jsonl", b"{\"id\":\"a\",\"video\":\"v.mp4\",\"question\":\"Q?\"}\n");
    let target = model("target");
    let cases: [(&[&str], &str); 6] = [
        (&["run", "missing.jsonl"], "missing.jsonl"),
        (&["run", &file], "--target"),
        (&["run", &file, "--target", &target], "--draft"),
        (&["run", &file, "--set", "frames=3"], "unknown setting"),
        (
            &["run", &file, "--concurrency", "0", "--target", &target, "--set", "strategy=uniform"],
            "concurrency",
        ),
        (&["run", &file, "--videos", "ftp://h/"], "--videos"),
    ];
    for (args, wanted) in cases {
        let done = place.run(args);
        assert_eq!(done.code, Some(2), "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(wanted), "{args:?}: {}", done.stderr);
    }
}

#[test]
fn ctrl_c_finishes_the_round_and_the_same_command_goes_on() {
    stopped_gently("INT");
}

#[test]
fn so_does_what_a_service_manager_sends() {
    stopped_gently("TERM");
}

fn stopped_gently(word: &str) {
    let place = Place::new();
    let videos = place.videos(&[300, 320, 340], 4);
    let all = jobs(&videos);
    let file = place.write_jobs("jobs.jsonl", &all);
    let pair = pair();
    let args = with_pair(&["run", &file, "--results", "out", "--concurrency", "2"], &pair);
    let stderr = place.path("first.log");
    let mut child = place.start(&[&args[..], &["-vv", "--log-json"]].concat(), &stderr);
    until("the first round", || log(&stderr).contains("\"round done\""));
    signal(&child, word);
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", log(&stderr));
    assert!(log(&stderr).contains("press Ctrl-C again"), "{}", log(&stderr));

    let rounds = "select id, round, committed_at from rounds order by id, round";
    let before = place.sql(rounds);
    assert!(!before.is_empty());
    assert!(place.sql("select id from answers").len() < all.len(), "the run was over before the signal");
    let started = log(&stderr).matches("\"generation started\"").count();
    let ended = log(&stderr).matches("\"generation ended\"").count();
    assert_eq!(started, ended, "every generation that was begun was finished");

    let done = place.run(&args);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(place.results("out", "answers.jsonl").len(), all.len());
    let after = place.sql(rounds);
    assert!(before.iter().all(|round| after.contains(round)), "a committed round was made again");
}

#[test]
fn a_second_process_waits_for_the_home_and_says_who_holds_it() {
    let place = Place::new();
    let videos = place.videos(&[300], 4);
    let file = place.write_jobs("jobs.jsonl", &jobs(&videos));
    let pair = pair();
    let stderr = place.path("run.log");
    let args = with_pair(&["run", &file, "--results", "out", "-vv", "--log-json"], &pair);
    let mut running = place.start(&args, &stderr);
    until("the run to hold the home", || log(&stderr).contains("\"generation started\""));
    let question = &videos[0].plan.questions[0].text;
    let asked = place.run(&with_pair(&["ask", videos[0].path.to_str().unwrap(), question, "--json"], &pair));
    assert!(running.wait().unwrap().success(), "{}", log(&stderr));
    assert_eq!(asked.code, Some(0), "{}", asked.stderr);
    let holder = format!("process {}", running.id());
    assert!(
        asked.stderr.contains("waiting for the home") && asked.stderr.contains(&holder),
        "{}",
        asked.stderr
    );
    let rows = place.sql("select batch from answers");
    assert_eq!(rows.len(), 5);
}
