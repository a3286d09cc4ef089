//! One set of names: the table in code, `docs/metrics.md`, what the crates write, and what dashboard and alerts ask for.

use std::path::{Path, PathBuf};

use spectemp_telemetry::METRICS;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

/// `docs/metrics.md` has one row per metric: name, type, labels in their order, and a meaning.
#[test]
fn documented_as_in_code() {
    let text = read("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `spectemp_"));
    let documented: Vec<[String; 3]> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 4, "name, type, labels and meaning: {row}");
            assert!(cells[3].len() > 20, "no meaning: {row}");
            [cells[0].trim_matches('`').to_owned(), cells[1].to_owned(), cells[2].replace('`', "")]
        })
        .collect();
    let coded: Vec<[String; 3]> = METRICS
        .iter()
        .map(|metric| [metric.name.to_owned(), metric.kind.name().to_owned(), metric.labels.join(", ")])
        .collect();
    assert_eq!(documented, coded);
}
