//! `values.yaml` and `values.schema.json` say the same, and the schema refuses what cannot work.

use serde_json::{Value, json};

use crate::files::{helm, read, value_files, yaml};

fn schema() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&read("spectemp/values.schema.json")).unwrap();
    jsonschema::draft202012::new(&schema).unwrap_or_else(|cause| panic!("the schema itself: {cause}"))
}

fn defaults() -> Value {
    yaml(&read("spectemp/values.yaml"))
}

/// `over` on top of `base`, as helm puts values together.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// The defaults with one value set, by its dotted path.
fn with(path: &str, value: Value) -> Value {
    let over = path.rsplit('.').fold(value, |inner, key| json!({ key: inner }));
    let mut all = defaults();
    merge(&mut all, &over);
    all
}

#[test]
fn defaults_and_examples_are_allowed() {
    let schema = schema();
    for (name, over) in value_files() {
        let mut all = defaults();
        merge(&mut all, &over);
        let errors: Vec<String> = schema.iter_errors(&all).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let schema = schema();
    for (path, value) in [
        ("typo", json!(1)),
        ("worker.typo", json!(1)),
        ("worker.concurrency", json!(0)),
        ("worker.concurrency", json!("8")),
        ("worker.device", json!("gpu")),
        ("worker.device", json!("cpu")), // with a GPU and bf16
        ("worker.gpu.count", json!(0)),  // with cuda
        ("worker.graceSeconds", json!(0)),
        ("worker.terminationMarginSeconds", json!(0)),
        ("worker.target", json!("Qwen2.5-VL")),
        ("worker.modelCache.type", json!("pvc")),
        ("worker.modelCache.type", json!("hostPath")), // without a path
        ("worker.port", json!(80)),                    // which a user without rights cannot bind
        ("objects.prefix", json!("s3://bucket/no-slash")),
        ("objects.prefix", json!("bucket/traces/")),
        ("objects.allow", json!(["s3://a/,s3://b/"])), // two in one
        ("objects.allow", json!([""])),
        ("objects.endpoint", json!("https://minio/path")),
        ("database.bundled.password", json!("has a / and @")),
        ("scaling.enabled", json!("yes")),
        ("scaling.jobsPerWorker", json!(0)),
        ("api.ingress.enabled", json!(true)), // without a host
        ("metrics.serviceMonitor.interval", json!("often")),
        ("podSecurityContext.runAsNonRoot", json!(false)),
        ("securityContext.privileged", json!(true)),
        ("api.resources.limits", json!({"memory": "half"})),
    ] {
        assert!(!schema.is_valid(&with(path, value.clone())), "{path}={value} is allowed");
    }
    assert!(schema.is_valid(&with("worker.concurrency", json!(16))));
}

/// Every value of the schema stands in `values.yaml`; the other way round is what `additionalProperties` is for.
#[test]
fn every_value_is_shown() {
    let schema: Value = serde_json::from_str(&read("spectemp/values.schema.json")).unwrap();
    let mut missing = Vec::new();
    compare(&schema, &defaults(), "", &mut missing);
    assert!(missing.is_empty(), "values.yaml lacks {missing:?}");
}

fn compare(schema: &Value, values: &Value, path: &str, missing: &mut Vec<String>) {
    // What may have any content is not looked into; `global` is helm's own.
    let Some(properties) =
        schema["properties"].as_object().filter(|_| schema["additionalProperties"] == false)
    else {
        return;
    };
    for (key, schema) in properties.iter().filter(|(key, _)| *key != "global") {
        match values.get(key) {
            Some(value) => compare(schema, value, &format!("{path}.{key}"), missing),
            None => missing.push(format!("{path}.{key}")),
        }
    }
}

/// How templates shorten the way to values that they use much.
const SHORT: [(&str, &str); 5] = [
    ("(index $values .component).", ".Values.worker."),
    ("$values.", ".Values."),
    ("$worker.", ".Values.worker."),
    ("$cache.", ".Values.worker.modelCache."),
    ("$policy.", ".Values.networkPolicy."),
];

/// Every value is used by a template: itself, or as a part of what is put in whole.
#[test]
fn every_value_is_used() {
    let files = std::fs::read_dir(helm().join("spectemp/templates")).unwrap();
    let text: String = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    // Both components have these; the helper takes them by the component's name.
    let text = text + ".Values.api.log .Values.api.extraEnv ";
    // To name a value, or to take a sum over it, is not to use it.
    let text: String =
        text.lines().filter(|line| !line.contains(":= .Values.") && !line.contains("sha256sum")).collect();
    let text = SHORT.iter().fold(text, |text, (short, long)| text.replace(short, long));
    let mut leaves = Vec::new();
    collect(&defaults(), String::new(), &mut leaves);
    assert!(leaves.len() > 100, "{}", leaves.len());
    let unused: Vec<&String> = leaves.iter().filter(|leaf| !is_used(&text, leaf)).collect();
    assert!(
        !is_used(&text, "worker.unheard") && !is_used(&text, "database.unheard"),
        "this test sees nothing"
    );
    assert!(unused.is_empty(), "in values.yaml and in no template: {unused:?}");
}

fn is_used(text: &str, leaf: &str) -> bool {
    let ends = leaf.match_indices('.').map(|(at, _)| at).chain([leaf.len()]);
    ends.map(|end| format!(".Values.{}", &leaf[..end])).any(|path| {
        let mut found = text.match_indices(&path).map(|(at, _)| text[at + path.len()..].chars().next());
        found.any(|next| next.is_none_or(|next| next != '.' && !next.is_alphanumeric()))
    })
}

fn collect(values: &Value, path: String, leaves: &mut Vec<String>) {
    match values.as_object().filter(|map| !map.is_empty()) {
        Some(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(value, path, leaves);
            }
        }
        None => leaves.push(path),
    }
}
