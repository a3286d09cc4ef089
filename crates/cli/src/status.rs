//! `spectemp status` and `spectemp cancel`: what a server knows of a job or a batch, and ending it.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};
use reqwest::Method;
use serde_json::Value;

use crate::{
    client::{Client, Named, ServerArgs},
    output,
    run::words::plain,
};

/// Arguments of `spectemp status`.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// A job's UUID or a batch's name [default: all batches].
    #[arg(value_name = "JOB|BATCH")]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `spectemp cancel`.
#[derive(Args)]
pub(crate) struct CancelArgs {
    /// A job's UUID, or a batch's name: then all its jobs that have not ended.
    #[arg(value_name = "JOB|BATCH")]
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs `spectemp status`.
pub(crate) async fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    let Some(name) = &args.name else { return all(&client, args.json).await };
    let (value, words) = match client.named(name).await? {
        Named::Job(job) => {
            let answered = job["status"] == "answered";
            let answer = if answered { client.find(&["jobs", name, "answer"]).await? } else { None };
            let words = job_words(&job, answer.as_ref());
            (with_answer(job, answer), words)
        }
        Named::Batch(batch) => {
            let words = batch_words(&batch);
            (batch, words)
        }
    };
    if args.json {
        output::print_json(&value)?;
    } else {
        output::print(&words)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn with_answer(mut job: Value, answer: Option<Value>) -> Value {
    if let (Some(object), Some(answer)) = (job.as_object_mut(), answer) {
        object.insert("answer".to_owned(), answer);
    }
    job
}

/// All batches, and with them what waits and runs.
async fn all(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let mut batches = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", "1000")];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let mut page = client.json(client.asking(Method::GET, &["batches"], &query)).await?;
        if let Some(rows) = page["batches"].as_array_mut() {
            batches.append(rows);
        }
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if json {
        output::print_json(&batches)?;
        return Ok(ExitCode::SUCCESS);
    }
    if batches.is_empty() {
        output::print("no batches; jobs that were submitted alone: `spectemp status jobs`")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["batch", "jobs", "queued", "running", "answered", "failed", "cancelled", "created"]);
    for batch in &batches {
        let counts = |name: &str| batch["counts"][name].to_string();
        let mut row = vec![plain(text(batch, "batch"))];
        row.extend(["total", "queued", "running", "answered", "failed", "cancelled"].map(counts));
        row.push(text(batch, "created_at").to_owned());
        table.add_row(row);
    }
    output::print(&table.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A job, a line per fact.
pub(crate) fn job_words(job: &Value, answer: Option<&Value>) -> String {
    let mut lines = vec![
        format!(
            "job         {} ({} of batch {})",
            text(job, "job_id"),
            plain(text(job, "id")),
            plain(text(job, "batch"))
        ),
        format!("status      {}", text(job, "status")),
        format!("video       {}", plain(text(job, "video"))),
        format!("question    {}", plain(text(job, "question"))),
        format!("rounds      {}", job["rounds"]),
    ];
    if let Some(worker) = job["worker"].as_str() {
        lines.push(format!("worker      {}", plain(worker)));
    }
    if let Some(error) = job["error"].as_str() {
        lines.push(format!("error       {}", plain(error)));
    }
    if let Some(answer) = answer {
        let choice = answer["choice"].as_str().map(|letter| format!("{letter}: ")).unwrap_or_default();
        lines.push(format!("answer      {}{}", plain(&choice), plain(text(answer, "answer"))));
        if let Some(confidence) = answer["confidence"].as_f64() {
            lines.push(format!("confidence  {confidence:.2}"));
        }
    }
    lines.join("\n")
}

/// A batch in words.
pub(crate) fn batch_words(batch: &Value) -> String {
    let mut lines = vec![
        format!("batch      {}", plain(text(batch, "batch"))),
        format!("jobs       {}", counts_words(batch)),
    ];
    if batch["bad_lines"].as_u64() > Some(0) {
        lines.push(format!("bad lines  {}", batch["bad_lines"]));
    }
    if batch["sealed"] == false {
        lines.push("lines      still being read".to_owned());
    }
    if let Some(results) = batch["results"].as_str() {
        let at = batch["exported_at"].as_str().map(|at| format!(" (written at {at})")).unwrap_or_default();
        lines.push(format!("results    {}{at}", plain(results)));
    }
    lines.join("\n")
}

/// `3 of 10 answered, 1 failed, 2 running, 4 queued`.
pub(crate) fn counts_words(batch: &Value) -> String {
    let number = |name: &str| batch["counts"][name].as_u64().unwrap_or_default();
    let mut words = format!("{} of {} answered", number("answered"), number("total"));
    for name in ["failed", "cancelled", "running", "queued"] {
        if number(name) > 0 {
            words.push_str(&format!(", {} {name}", number(name)));
        }
    }
    words
}

/// Runs `spectemp cancel`.
pub(crate) async fn cancel(args: CancelArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    let kind = match client.named(&args.name).await? {
        Named::Job(_) => "jobs",
        Named::Batch(_) => "batches",
    };
    let done = client.json(client.request(Method::POST, &[kind, &args.name, "cancel"])).await?;
    if args.json {
        output::print_json(&done)?;
    } else if kind == "jobs" {
        output::print(&format!("job {} is cancelled", args.name))?;
    } else {
        output::print(&format!("{} jobs of batch {} are cancelled", done["jobs"], args.name))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_read_well() {
        let batch = json!({"counts": {"queued": 4, "running": 2, "answered": 3, "failed": 0, "cancelled": 1, "total": 10}});
        assert_eq!(counts_words(&batch), "3 of 10 answered, 1 cancelled, 2 running, 4 queued");
    }

    #[test]
    fn a_hostile_answer_cannot_move_the_cursor() {
        let job = json!({"job_id": "1", "id": "q", "batch": "b", "status": "answered", "rounds": 1});
        let words = job_words(&job, Some(&json!({"answer": "a\u{1b}[2Jb", "confidence": 0.5})));
        assert!(!words.contains('\u{1b}'), "{words:?}");
    }
}
