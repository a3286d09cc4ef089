//! `schema/trace.v1.json` is the form that readers of traces rely on; it changes only with `Trace::VERSION`, or by
//! additions. Write it anew with `UPDATE_SCHEMA=1 cargo test -p spectemp-types`.

use spectemp_types::{Round, Trace};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/trace.v1.json");

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let schema = schemars::schema_for!(Trace);
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(PATH, &text).unwrap();
    }
    let committed = std::fs::read_to_string(PATH).unwrap();
    assert!(committed == text, "types changed the trace's form: see the head of this file");
}

#[test]
fn the_version_is_in_the_file_name() {
    assert!(PATH.ends_with(&format!("trace.v{}.json", Trace::VERSION)));
    assert_eq!(Round::VERSION, Trace::VERSION);
}
