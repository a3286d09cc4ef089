//! `spectemp demo`: the archive, the table, the report, the commands that it names, and going on.

use serde_json::Value;

use crate::support::{Done, Place};

fn demo(place: &Place) -> Done {
    place.run(&[
        "demo",
        "--lengths",
        "64,120",
        "--questions",
        "3",
        "--fps",
        "2",
        "--seed",
        "5",
        "--run",
        "first",
        "--report",
        "report",
        "--json",
        "figures.json",
    ])
}

/// Right answers of `strategy`, over all lengths.
fn right(figures: &Value, strategy: &str) -> u64 {
    let mut cells = figures["cells"].as_array().unwrap().iter();
    let all = cells.find(|cell| cell["strategy"] == strategy && cell["length"] == "all").unwrap();
    assert_eq!(all["questions"], 6);
    all["right"].as_u64().unwrap()
}

#[test]
fn the_demonstration_does_what_it_shows() {
    let place = Place::new();
    let done = demo(&place);
    assert_eq!(done.code, Some(0), "{}", done.stderr);

    let text = std::fs::read_to_string(place.path("figures.json")).unwrap();
    let figures: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(figures["archive"]["videos"], 6);
    assert_eq!(figures["cells"].as_array().unwrap().len(), 3 * 3, "two lengths and all, three strategies");
    assert!(figures["origin"]["machine"]["cores"].as_u64() > Some(0), "{figures}");
    let (ours, uniform) = (right(&figures, "spectemp"), right(&figures, "uniform"));
    assert!(ours >= 5 && ours > uniform, "spectemp {ours} of 6, uniform {uniform}");

    let report = std::fs::read_to_string(place.path("report/report.html")).unwrap();
    assert!(report.contains("target-uniform") && !report.contains("http://") && !report.contains("src=\"/"));
    assert!(place.path("report/traces").read_dir().unwrap().count() > 0);

    // The query that it suggests works, and counts every question.
    let line = done.stdout.lines().find(|line| line.contains(" sql ")).expect("a query to try");
    let query = line.split('"').nth(1).unwrap();
    let rows = place.sql(query);
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.iter().all(|row| row["questions"] == 6), "{rows:?}");

    // The same run again asks nothing again.
    let rounds = "select job_id, round, committed_at from rounds order by 1, 2";
    let before = place.sql(rounds);
    let again = demo(&place);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("all there already"), "{}", again.stderr);
    assert_eq!(place.sql(rounds), before);
}
