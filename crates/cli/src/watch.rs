//! `spectemp watch`: a job or a batch of a server, live, until it ends.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use spectemp_types::Round;

use crate::{
    client::{
        Client, Named, ServerArgs,
        events::{Event, Events},
    },
    output,
    run::words::round_line,
    status::{batch_words, counts_words, job_words},
};

/// Arguments of `spectemp watch`.
#[derive(Args)]
pub(crate) struct WatchArgs {
    /// A job's UUID or a batch's name.
    #[arg(value_name = "JOB|BATCH")]
    name: String,
    /// Print every event as one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) async fn run(args: WatchArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    match client.named(&args.name).await? {
        Named::Job(_) => job(&client, &args.name, args.json).await,
        Named::Batch(_) => batch(&client, &args.name, args.json).await,
    }
}

/// Follows a job; a failure where it has no answer.
pub(crate) async fn job(client: &Client, id: &str, json: bool) -> anyhow::Result<ExitCode> {
    let mut events = Events::of(client, "jobs", id);
    let bar = bar(json, ProgressBar::new_spinner, "{spinner} {msg}");
    let mut answer = None;
    while let Some(event) = events.next().await? {
        if json {
            print_event(&event)?;
        }
        match event.name.as_str() {
            "round" => {
                if let Ok(round) = serde_json::from_value::<Round>(event.data) {
                    line(bar.as_ref(), &round_line(&round));
                }
            }
            "answer" => answer = Some(event.data),
            "end" => {
                finish(bar.as_ref());
                if !json {
                    output::print(&job_words(&event.data, answer.as_ref()))?;
                }
                let answered = event.data["status"] == "answered";
                return Ok(if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            _ => {
                let status = event.data["status"].as_str().unwrap_or_default().to_owned();
                match &bar {
                    Some(bar) => bar.set_message(status),
                    None if !json => eprintln!("{status}"),
                    None => {}
                }
            }
        }
    }
    anyhow::bail!("the server ended the stream before job {id} ended")
}

/// Follows a batch; a failure where a job of it failed or was cancelled.
pub(crate) async fn batch(client: &Client, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let mut events = Events::of(client, "batches", name);
    let bar = bar(json, || ProgressBar::new(0), "{bar:30} {pos}/{len}  {msg}");
    while let Some(event) = events.next().await? {
        if json {
            print_event(&event)?;
        }
        let counts = |name: &str| event.data["counts"][name].as_u64().unwrap_or_default();
        if event.name == "end" {
            finish(bar.as_ref());
            if !json {
                output::print(&batch_words(&event.data))?;
            }
            let all = counts("answered") == counts("total");
            return Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        match &bar {
            Some(bar) => {
                bar.set_length(counts("total"));
                bar.set_position(counts("answered") + counts("failed") + counts("cancelled"));
                bar.set_message(counts_words(&event.data));
            }
            None if !json => eprintln!("{}", counts_words(&event.data)),
            None => {}
        }
    }
    anyhow::bail!("the server ended the stream before batch {name} ended")
}

fn print_event(Event { name, data }: &Event) -> anyhow::Result<()> {
    let line: Value = json!({ "event": name, "data": data });
    Ok(output::print(&line.to_string())?)
}

/// A bar on a terminal, none elsewhere.
fn bar(json: bool, make: impl FnOnce() -> ProgressBar, template: &str) -> Option<ProgressBar> {
    (!json && std::io::stderr().is_terminal()).then(|| {
        let bar = make();
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    })
}

fn line(bar: Option<&ProgressBar>, text: &str) {
    match bar {
        Some(bar) => bar.println(text),
        None => eprintln!("{text}"),
    }
}

fn finish(bar: Option<&ProgressBar>) {
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}
