//! `spectemp doctor`: what this machine has and lacks, each with what to do.

use std::{path::Path, process::ExitCode};

use clap::Args;
use serde::Serialize;
use spectemp_remote::Address;
use spectemp_store::{Home, StoreError};
use spectemp_video::ffmpeg_support;

use crate::{
    args::ModelArgs,
    context::Context,
    models::{self, Opening},
    output,
};

/// Arguments of `spectemp doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    models: ModelArgs,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// Works, but could be better or is not set up yet.
    Note,
    Bad,
}

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

fn finding(what: &'static str, state: State, found: impl Into<String>, advice: Option<&str>) -> Finding {
    Finding { what, state, found: found.into(), advice: advice.map(str::to_owned) }
}

/// Runs `spectemp doctor`: exit status 1 where something is bad.
pub(crate) async fn run(args: DoctorArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let mut findings = libraries();
    findings.extend(machine());
    findings.push(home(&context.home_dir()?).await);
    findings.extend(models_found(&args.models, context).await);
    let bad = findings.iter().any(|finding| finding.state == State::Bad);
    if args.json {
        output::print_json(&serde_json::json!({ "ok": !bad, "findings": findings }))?;
    } else {
        for finding in &findings {
            let mark = match finding.state {
                State::Ok => "ok  ",
                State::Note => "note",
                State::Bad => "BAD ",
            };
            output::print(&format!("{mark}  {:<10} {}", finding.what, finding.found))?;
            if let Some(advice) = &finding.advice {
                output::print(&format!("                 → {advice}"))?;
            }
        }
    }
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn libraries() -> Vec<Finding> {
    let support = ffmpeg_support();
    let versions =
        format!("libavcodec {}, libavformat {}, {}", support.avcodec, support.avformat, support.licence);
    let (there, missing): (Vec<_>, Vec<_>) = support.decoders.iter().partition(|(_, there)| *there);
    let names =
        |list: &[&(&'static str, bool)]| list.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let decoders = match missing.is_empty() {
        true => finding("decoders", State::Ok, names(&there), None),
        false => finding(
            "decoders",
            State::Note,
            format!("{}; missing: {}", names(&there), names(&missing)),
            Some("videos of a missing codec fail with an error; install a full build of FFmpeg's libraries"),
        ),
    };
    let encoder = match support.h264_encoder {
        true => finding("encoder", State::Ok, "libx264", None),
        false => finding(
            "encoder",
            State::Note,
            "libx264 is missing",
            Some("only `spectemp demo` needs it, to make its videos: install a build of FFmpeg with libx264"),
        ),
    };
    vec![finding("ffmpeg", State::Ok, versions, None), decoders, encoder]
}

fn machine() -> Vec<Finding> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut findings = vec![finding("threads", State::Ok, threads.to_string(), None)];
    match available_memory_gib() {
        Some(gib) if gib < 2.0 => findings.push(finding(
            "memory",
            State::Note,
            format!("{gib:.1} GiB available"),
            Some("a 3B checkpoint in bf16 needs about 7 GiB, a 7B one about 16 GiB, besides half a GiB for videos"),
        )),
        Some(gib) => findings.push(finding("memory", State::Ok, format!("{gib:.1} GiB available"), None)),
        None => {}
    }
    findings
}

/// `MemAvailable` of Linux; nothing elsewhere.
fn available_memory_gib() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0 / 1024.0)
}

async fn home(dir: &Path) -> Finding {
    let found = match Home::open_reader(dir).await {
        Ok(home) => home
            .ledger()
            .counts(None)
            .await
            .map(|counts| format!("{}, {} jobs", dir.display(), counts.total())),
        Err(StoreError::NoHome { .. }) => {
            let text = format!("{} is not there yet", dir.display());
            return finding("home", State::Note, text, Some("the first `spectemp ask` or `run` makes it"));
        }
        Err(error) => Err(error),
    };
    match found {
        Ok(text) => finding("home", State::Ok, text, None),
        Err(error) => finding(
            "home",
            State::Bad,
            error.to_string(),
            Some("name another folder with --home DIR or SPECTEMP_HOME, or restore this one from a backup"),
        ),
    }
}

/// Whether the models that are set can be loaded; only loading tells.
async fn models_found(args: &ModelArgs, context: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (what, flag) in [(models::TARGET, &args.target), (models::DRAFT, &args.draft)] {
        let Some(name) = context.config.setting(what, flag.clone()).value else {
            let advice =
                format!("pass --{what} DIR or hf://owner/name, or set SPECTEMP_{}", what.to_uppercase());
            findings.push(finding(what, State::Note, "not set", Some(&advice)));
            continue;
        };
        let on_server = Address::is_meant(&name);
        findings.push(match Opening::without_caches(args, context).open(&name, what).await {
            Ok(model) => {
                let place = if on_server { "answers".to_owned() } else { format!("loads on {}", device(args, context)) };
                let text = format!("{name}, revision {}, {place}", model.card().revision.revision);
                finding(what, State::Ok, text, None)
            }
            // A server's error says what to do.
            Err(error) if on_server => finding(what, State::Bad, format!("{error:#}"), None),
            Err(error) => finding(
                what,
                State::Bad,
                format!("{error:#}"),
                Some("name a folder in the Hugging Face layout of Qwen2.5-VL, or pull it with `spectemp model pull`"),
            ),
        });
    }
    findings
}

fn device(args: &ModelArgs, context: &Context) -> String {
    context.config.setting("device", args.device.device.clone()).value.unwrap_or_default()
}
