//! `spectemp key` and `spectemp index` on a home's ledger, as a user calls them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spectemp-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn spectemp(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_spectemp"))
            .args(arguments)
            .env("SPECTEMP_HOME", self.0.join("home"))
            .env_remove("SPECTEMP_DATABASE_URL")
            .output()
            .unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.spectemp(arguments);
        let (said, cause) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "{arguments:?}: {cause}");
        String::from_utf8(said).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.good(arguments)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let folder = Folder::new("keys");
    let secret = folder.good(&["key", "create", "--tenant", "acme", "--role", "admin", "--name", "nightly"]);
    assert!(secret.starts_with("stk_") && secret.trim().len() == 68, "{secret}");
    let listed = folder.good(&["key", "list", "--json"]);
    assert!(!listed.contains(secret.trim()) && !listed.contains("stk_"), "{listed}");
    let keys: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&keys[0]["tenant"], &keys[0]["role"], &keys[0]["name"]),
        (&"acme".into(), &"admin".into(), &"nightly".into())
    );
    assert_eq!(keys[0]["revoked_at"], Value::Null);
    let id = keys[0]["id"].as_str().unwrap().to_owned();
    folder.good(&["key", "revoke", &id]);
    assert!(folder.json(&["key", "list", "--json"])[0]["revoked_at"].is_string());
    assert!(!folder.spectemp(&["key", "revoke", "key_none"]).status.success());
    assert_eq!(folder.spectemp(&["key", "create", "--role", "root"]).status.code(), Some(2));
}

#[test]
fn an_index_of_a_folder_lives_its_life() {
    let folder = Folder::new("index");
    let questions = folder
        .write("q.jsonl", "{\"id\":\"what\",\"question\":\"What happens?\"}\n{\"question\":\"Who?\"}\n");
    for name in ["in/a.mp4", "in/x/b.mp4", "in/c.txt", "in/tmp/d.mp4"] {
        folder.write(name, name);
    }
    let prefix = folder.0.join("in").display().to_string();
    let create = [
        "index",
        "create",
        "--prefix",
        &prefix,
        "--include",
        "*.mp4",
        "--exclude",
        "tmp/*",
        "--questions",
        &questions,
    ];
    let plan = folder.good(&[&create[..], &["--dry-run"]].concat());
    assert!(plan.contains("2 belong to the index") && plan.contains("2 questions, 4 jobs"), "{plan}");
    assert_eq!(folder.json(&["index", "list", "--json"]), Value::Array(vec![]), "a dry run makes nothing");

    let named = [&create[..2], &["cams"], &create[2..], &["--schedule", "0 3 * * *"]].concat();
    let made = folder.good(&named);
    assert!(
        made.contains("2 new") && made.contains("4 jobs enqueued") && made.contains("index:cams"),
        "{made}"
    );
    assert!(!folder.spectemp(&named).status.success(), "the name is taken");
    let again = folder.good(&["index", "run", "cams"]);
    assert!(again.contains("0 new, 0 changed: 0 jobs enqueued"), "{again}");
    folder.write("in/a.mp4", "another version");
    let plan = folder.good(&["index", "run", "cams", "--dry-run"]);
    assert!(plan.contains("0 new, 1 changed"), "{plan}");
    assert!(folder.good(&["index", "run", "cams"]).contains("1 changed: 2 jobs enqueued"));

    let shown = folder.json(&["index", "show", "cams", "--json"]);
    assert_eq!((shown["run"].as_u64(), shown["state"].as_str()), (Some(3), Some("idle")), "{shown}");
    folder.good(&["index", "pause", "cams"]);
    assert!(!folder.spectemp(&["index", "run", "cams"]).status.success());
    folder.good(&["index", "resume", "cams"]);
    folder.good(&["index", "run", "cams"]);
    folder.good(&["index", "delete", "cams"]);
    assert!(!folder.spectemp(&["index", "show", "cams"]).status.success());

    let bad = [&create[..], &["--schedule", "every day"]].concat();
    assert_eq!(folder.spectemp(&bad).status.code(), Some(2), "a schedule that is none");
}
