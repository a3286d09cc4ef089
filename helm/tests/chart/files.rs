//! Files of the chart, and what was rendered from them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The folder `helm`.
pub(crate) fn helm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn read(path: &str) -> String {
    let path = helm().join(path);
    fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

/// One YAML document.
pub(crate) fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|cause| panic!("{cause}\n{text}"))
}

/// The value files of the tests by name.
pub(crate) fn value_files() -> BTreeMap<String, Value> {
    let names = names("tests/values");
    assert!(names.len() >= 3, "{names:?}");
    let file = |name: String| {
        let value = yaml(&read(&format!("tests/values/{name}.yaml")));
        (name, value)
    };
    names.into_iter().map(file).collect()
}

/// The rendered objects of each value file.
pub(crate) fn rendered() -> BTreeMap<String, Vec<Value>> {
    let objects = |name: String| {
        let text = read(&format!("tests/rendered/{name}.yaml"));
        let documents = text.split("\n---\n").map(|part| part.trim_start_matches("---\n"));
        let objects: Vec<Value> = documents.map(yaml).filter(|object| !object.is_null()).collect();
        assert!(objects.len() > 5, "{name} has {} objects", objects.len());
        (name, objects)
    };
    names("tests/values").into_iter().map(objects).collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(helm().join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    names.collect()
}

/// The manifests were rendered from the chart as it is: the same sum as `render.sh` writes.
#[test]
fn manifests_are_as_new_as_the_chart() {
    let mut files = Vec::new();
    walk(&helm().join("spectemp"), "spectemp", &mut files);
    walk(&helm().join("tests/values"), "tests/values", &mut files);
    files.sort();
    let lines: String = files
        .iter()
        .map(|file| {
            format!("{}  {file}\n", hex::encode(Sha256::digest(fs::read(helm().join(file)).unwrap())))
        })
        .collect();
    let now = hex::encode(Sha256::digest(lines));
    assert_eq!(read("tests/rendered/SOURCE").trim(), now, "the chart has changed: run helm/tests/render.sh");
}

fn walk(folder: &Path, name: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{name}/{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() { walk(&path, &name, files) } else { files.push(name) }
    }
}
