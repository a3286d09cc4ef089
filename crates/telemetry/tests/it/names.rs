//! One set of names: the table in code, `docs/metrics.md`, what the crates write, and what dashboard and alerts ask for.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use spectemp_telemetry::{METRICS, MetricKind};

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

/// Dashboard, alerts, scaling and the operator's guide ask only for metrics that there are.
#[test]
fn asked_for_as_in_code() {
    let mut known = BTreeSet::new();
    for metric in METRICS {
        known.insert(metric.name.to_owned());
        if let MetricKind::Histogram(_) = metric.kind {
            known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", metric.name)));
        }
    }
    for (path, least) in [
        ("helm/spectemp/dashboards/spectemp.json", 10),
        ("helm/spectemp/alerts/spectemp.yaml", 5),
        ("docs/operations.md", 5),
    ] {
        let asked = words(&read(path));
        let asked: BTreeSet<&String> =
            asked.iter().filter(|word| !NOT_METRICS.contains(&word.as_str())).collect();
        let unknown: Vec<_> = asked.iter().filter(|word| !known.contains(**word)).collect();
        assert!(unknown.is_empty(), "{path} asks for {unknown:?}");
        assert!(asked.len() >= least, "{path} asks for {asked:?} only");
    }
}

/// The crates write every metric of the table, and no other.
#[test]
fn written_as_in_code() {
    let mut written = BTreeSet::new();
    for room in std::fs::read_dir(root().join("crates")).unwrap() {
        sources(&room.unwrap().path().join("src"), &mut |text| {
            for (at, _) in text.match_indices("!(\"spectemp_") {
                let macros = ["counter", "gauge", "histogram"];
                if macros.iter().any(|name| text[..at].ends_with(name)) {
                    written.extend(text[at + 3..].split('"').next().map(str::to_owned));
                }
            }
        });
    }
    let table: BTreeSet<String> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(written, table);
}

fn sources(folder: &Path, read: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, read);
        } else if path.extension().is_some_and(|end| end == "rs") {
            read(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Words that look like metrics in the files above and are something else.
const NOT_METRICS: &[&str] = &["spectemp_reader", "spectemp_scaler"];

/// Every `spectemp_…` word of a text.
fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("spectemp_"))
        .map(str::to_owned)
        .collect()
}
