//! The program knows every command, flag and variable that the manifests give it.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use crate::{files::rendered, manifests::pods};

/// `SPECTEMP_BIN`, or the binary that was built beside this test.
fn spectemp() -> PathBuf {
    let path = std::env::var_os("SPECTEMP_BIN").map_or_else(
        || std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("spectemp"),
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is missing: build it first (cargo build -p spectemp-cli), or name one with SPECTEMP_BIN",
        path.display()
    );
    path
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new(spectemp()).args(arguments).output().unwrap();
    assert!(output.status.success(), "spectemp {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Our containers: owner, arguments, names of `SPECTEMP_…` variables.
fn ours(objects: &[Value]) -> Vec<(String, Vec<String>, Vec<String>)> {
    let mut found = Vec::new();
    for (owner, pod) in pods(objects) {
        for container in pod["spec"]["containers"].as_array().unwrap() {
            if !container["image"].as_str().unwrap().starts_with("spectemp:") {
                continue;
            }
            let arguments = container["args"].as_array().unwrap().iter();
            let variables = container["env"]
                .as_array()
                .unwrap()
                .iter()
                .map(|variable| variable["name"].as_str().unwrap());
            found.push((
                owner.to_owned(),
                arguments.map(|argument| argument.as_str().unwrap().to_owned()).collect(),
                variables.filter(|name| name.starts_with("SPECTEMP_")).map(str::to_owned).collect(),
            ));
        }
    }
    assert_eq!(found.len(), 3, "api, worker and migration");
    found
}

#[test]
fn commands_and_flags_are_known() {
    for (values, objects) in rendered() {
        for (owner, arguments, _) in ours(&objects) {
            let command = arguments.iter().find(|argument| !argument.starts_with('-')).unwrap();
            let help = run(&[command, "--help"]);
            for flag in arguments.iter().filter(|argument| argument.starts_with("--")) {
                let flag = flag.split('=').next().unwrap();
                let known = help.split(|c: char| !(c.is_alphanumeric() || c == '-')).any(|word| word == flag);
                assert!(known, "{values} {owner}: spectemp {command} knows no {flag}\n{help}");
            }
        }
    }
}

#[test]
fn variables_are_known() {
    let settings = run(&["config", "show"]);
    for (values, objects) in rendered() {
        for (owner, arguments, variables) in ours(&objects) {
            let command = arguments.iter().find(|argument| !argument.starts_with('-')).unwrap();
            let help = run(&[command, "--help"]);
            assert!(variables.len() >= 3, "{owner} has {variables:?}");
            for variable in variables.iter().filter(|name| *name != "SPECTEMP_LOG") {
                let known = help.contains(variable.as_str()) || settings.contains(variable.as_str());
                assert!(known, "{values} {owner}: spectemp {command} does not tell of {variable}\n{help}");
            }
        }
    }
}
