//! The document is a promise: what changes in it is seen here.

use std::collections::BTreeSet;

use serde_json::Value;

#[test]
fn the_document_is_the_committed_one() {
    let mut document = spectemp_api::openapi();
    document["info"]["version"] = "VERSION".into();
    insta::assert_json_snapshot!("openapi", document);
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_has_a_name() {
    let document = spectemp_api::openapi();
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let mut names = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{method} {path}: {name} is taken");
        }
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                references.insert(reference.clone());
            }
            map.values().for_each(|value| collect(value, references));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
