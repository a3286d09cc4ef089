//! The command table as a user meets it. (That this test exists also makes `cargo test` build the program, which the
//! whole-system tests run.)
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::{Command, Output};

const COMMANDS: [&[&str]; 36] = [
    &["ask"],
    &["run"],
    &["up"],
    &["serve"],
    &["worker"],
    &["submit"],
    &["status"],
    &["cancel"],
    &["watch"],
    &["show"],
    &["sql"],
    &["demo"],
    &["probe"],
    &["frames"],
    &["model"],
    &["model", "pull"],
    &["model", "check"],
    &["doctor"],
    &["config", "show"],
    &["gc"],
    &["index", "create"],
    &["index", "list"],
    &["index", "show"],
    &["index", "run"],
    &["index", "pause"],
    &["index", "resume"],
    &["index", "delete"],
    &["key", "create"],
    &["key", "list"],
    &["key", "revoke"],
    &["bench"],
    &["bench", "frames"],
    &["bench", "model"],
    &["bench", "loop"],
    &["bench", "speculate"],
    &["bench", "gpu"],
];

fn spectemp(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spectemp")).args(arguments).output().unwrap()
}

#[test]
fn every_command_explains_itself_and_every_argument() {
    for command in COMMANDS {
        let output = spectemp(&[command, &["--help"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{command:?}");
        assert!(text.contains("Usage: spectemp"), "{command:?} says\n{text}");
        let mut lines = text.lines().skip_while(|line| !line.ends_with("ptions:")).peekable();
        while let Some(line) = lines.next() {
            let indent = line.len() - line.trim_start().len();
            let bare = indent < 8
                && line.trim_start().starts_with("--")
                && line.split("  ").filter(|part| !part.is_empty()).count() < 2;
            let followed = lines.peek().is_some_and(|next| next.starts_with("          "));
            assert!(!bare || followed, "{command:?} does not explain {line:?}");
        }
    }
}

#[test]
fn wrong_calls_exit_with_2_and_say_what_is_wrong() {
    let cases: [(&[&str], &str); 8] = [
        (&["answer"], "unrecognized subcommand 'answer'"),
        (&["frames", "video.mp4", "--out", "x"], "--at"),
        (&["frames", "video.mp4", "--at", "1,two", "--out", "x"], "two"),
        (&["frames", "video.mp4", "--at=-1", "--out", "x"], "-1"),
        (&["probe", "ftp://host/video.mp4"], "ftp"),
        (&["ask", "video.mp4", "what?", "--plan", "paper17"], "paper17"),
        (&["ask", "video.mp4", "what?", "--set", "frames=3"], "frames"),
        (&["bench", "speculate", "--prune", "0.5,2"], "a share from 0 to 1"),
    ];
    for (arguments, said) in cases {
        let output = spectemp(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?} says {text}");
        assert!(text.contains(said), "{arguments:?} says {text}");
        assert!(output.stdout.is_empty(), "{arguments:?} writes to stdout");
    }
}

#[test]
fn results_go_to_stdout_and_settings_say_where_they_come_from() {
    let folder = std::env::temp_dir();
    let output = Command::new(env!("CARGO_BIN_EXE_spectemp"))
        .args(["config", "show", "--json", "--home"])
        .arg(&folder)
        .env("SPECTEMP_THREADS", "3")
        .env_remove("SPECTEMP_CONFIG")
        .output()
        .unwrap();
    assert!(output.status.success());
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let setting = |name: &str| {
        let settings = shown["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == name).unwrap().clone()
    };
    assert_eq!(setting("home")["source"], "flag");
    assert_eq!(setting("threads")["source"], "environment");
    assert_eq!(setting("threads")["value"], "3");
    assert_eq!(setting("set.initial_frames")["value"], "10");
}
