//! The table of rooms in ARCHITECTURE.md is what the crates really import.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

type Imports = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Rows `| `name` | … | a, b | … |` of the first table whose header starts with `crate`.
fn promised() -> Imports {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| crate |")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let imports =
                cells[2].split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
            (cells[0].trim_matches('`').to_owned(), imports.collect())
        })
        .collect()
}

/// Direct dependencies between members, without development dependencies (except for `tests`, which has no others).
fn real() -> Imports {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let room = |name: &str| name.strip_prefix("spectemp-").map(str::to_owned);
    packages
        .iter()
        // The chart's tests are no room: they know the program by its name only.
        .filter(|package| package["name"] != "chart-tests")
        .map(|package| {
            let name = room(package["name"].as_str().unwrap()).expect("every package is a room");
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let direct = dependencies.filter(|dependency| name == "tests" || dependency["kind"] != "dev");
            (
                name.clone(),
                direct.filter_map(|dependency| room(dependency["name"].as_str().unwrap())).collect(),
            )
        })
        .collect()
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let (promised, real) = (promised(), real());
    assert_eq!(
        promised.keys().collect::<Vec<_>>(),
        real.keys().collect::<Vec<_>>(),
        "ARCHITECTURE.md and the workspace name different rooms"
    );
    for (room, imports) in &real {
        let extra: Vec<_> = imports.difference(&promised[room]).collect();
        assert!(extra.is_empty(), "{room} imports {extra:?}, which ARCHITECTURE.md does not allow");
    }
}

#[test]
fn the_table_promises_nothing_that_no_room_needs() {
    let (promised, real) = (promised(), real());
    for (room, imports) in promised.iter().filter(|(room, _)| *room != "tests") {
        let unused: Vec<_> = imports.difference(&real[room]).collect();
        assert!(unused.is_empty(), "ARCHITECTURE.md lets {room} import {unused:?}, which it does not");
    }
}
