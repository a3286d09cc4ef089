//! `spectemp submit`: a file of jobs, or one question, to a server.

use std::{path::Path, process::ExitCode};

use clap::Args;
use reqwest::{Body, Method, header};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::{
    client::{Client, ServerArgs},
    output::{self, Usage},
    run::words::{count, plain},
    watch,
};

/// Bytes of a file that are read at once.
const PIECE: usize = 256 * 1024;
/// Bad lines that are named on stderr.
const SHOWN: usize = 20;

/// Arguments of `spectemp submit`.
#[derive(Args)]
pub(crate) struct SubmitArgs {
    /// A file of jobs, one JSON object per line (- for stdin); or, with a question after it, a video.
    #[arg(value_name = "FILE.jsonl|VIDEO")]
    what: String,
    /// The question about the video.
    question: Option<String>,
    /// An option to choose from, for one question; give two or more.
    #[arg(long = "choice", value_name = "TEXT", requires = "question")]
    choices: Vec<String>,
    /// The job's own id, for one question [default: a new UUID].
    #[arg(long, value_name = "ID", requires = "question")]
    id: Option<String>,
    /// Override a setting of the plan; a line's own "set" goes over it.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A moment such as 2026-03-01T09:30:00Z after which no answer is wanted, for one question.
    #[arg(long, value_name = "MOMENT", requires = "question")]
    deadline: Option<String>,
    /// Sent again with the same key, one question makes one job.
    #[arg(long, value_name = "KEY", requires = "question")]
    idempotency_key: Option<String>,
    /// The batch that the jobs belong to [default: the file's name without its ending; `jobs` for one question].
    #[arg(long, value_name = "NAME")]
    batch: Option<String>,
    /// paper16, paper64 or demo, where a job names none [default: the server's].
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// Higher ones are claimed first, where a job names none.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// The prefix, on the server's side, that every video of the file must lie in; relative ones are taken from it.
    #[arg(long, value_name = "URI-PREFIX", conflicts_with = "question")]
    videos: Option<String>,
    /// Where the server writes the results of the file.
    #[arg(long, value_name = "URI", conflicts_with = "question")]
    results: Option<String>,
    /// Who is told when the jobs of the file have ended.
    #[arg(long, value_name = "URL", conflicts_with = "question")]
    webhook: Option<String>,
    /// Wait for the end, showing progress.
    #[arg(long)]
    wait: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) async fn run(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    match &args.question {
        Some(question) => one(&args, &client, question).await,
        None => file(&args, &client).await,
    }
}

async fn one(args: &SubmitArgs, client: &Client, question: &str) -> anyhow::Result<ExitCode> {
    let mut body = json!({ "video": args.what, "question": question });
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            body[name] = value;
        }
    };
    put("id", json!(args.id));
    put("plan", json!(args.plan));
    put("priority", json!(args.priority));
    put("deadline", json!(args.deadline));
    if !args.choices.is_empty() {
        put("choices", json!(args.choices));
    }
    if !args.set.is_empty() {
        put("set", settings(&args.set)?);
    }
    let query: Vec<(&str, &str)> = args.batch.iter().map(|batch| ("batch", batch.as_str())).collect();
    let mut request = client.asking(Method::POST, &["jobs"], &query).json(&body);
    if let Some(key) = &args.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let job = client.json(request).await?;
    let id = job["job_id"].as_str().unwrap_or_default().to_owned();
    if args.wait {
        return watch::job(client, &id, args.json).await;
    }
    if args.json {
        output::print_json(&job)?;
    } else {
        let status = job["status"].as_str().unwrap_or_default();
        output::print(&format!("job {id} is {status}; follow it with `spectemp watch {id}`"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `key=value` overrides as the object of a job.
fn settings(set: &[String]) -> anyhow::Result<Value> {
    let mut object = Map::new();
    for text in set {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Usage(format!("--set {text:?} is not of the form key=value")))?;
        let value =
            serde_json::from_str(value.trim()).unwrap_or_else(|_| Value::String(value.trim().to_owned()));
        object.insert(key.trim().to_owned(), value);
    }
    Ok(Value::Object(object))
}

async fn file(args: &SubmitArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let (body, stem) = open(&args.what).await?;
    let batch = args.batch.clone().or(stem);
    let mut query = Vec::new();
    let priority = args.priority.map(|priority| priority.to_string());
    let set = (!args.set.is_empty()).then(|| settings(&args.set)).transpose()?.map(|set| set.to_string());
    for (name, value) in [
        ("name", &batch),
        ("plan", &args.plan),
        ("set", &set),
        ("priority", &priority),
        ("videos", &args.videos),
        ("results", &args.results),
        ("webhook", &args.webhook),
    ] {
        query.extend(value.as_deref().map(|value| (name, value)));
    }
    let request = client.asking(Method::POST, &["batches"], &query);
    let request = request.header(header::CONTENT_TYPE, "application/x-ndjson").body(body);
    let intake = client.json(request).await?;
    let bad = intake["bad_lines"].as_u64().unwrap_or_default();
    tell_bad_lines(&intake, bad);
    let name = intake["batch"].as_str().unwrap_or_default();
    if args.wait {
        // The last object on stdout is the batch's; what was taken in goes before it.
        if args.json {
            output::print(&intake.to_string())?;
        } else {
            output::print(&words(&intake))?;
        }
        let watched = watch::batch(client, name, args.json).await?;
        return Ok(if bad > 0 { ExitCode::FAILURE } else { watched });
    }
    if args.json {
        output::print_json(&intake)?;
    } else {
        output::print(&format!("{}; follow it with `spectemp watch {}`", words(&intake), quoted(name)))?;
    }
    Ok(if bad > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn words(intake: &Value) -> String {
    let number = |name: &str| intake[name].as_u64().unwrap_or_default() as usize;
    let mut parts = vec![count(number("submitted"), "new job")];
    if number("existing") > 0 {
        parts.push(format!("{} there before", number("existing")));
    }
    if number("bad_lines") > 0 {
        parts.push(count(number("bad_lines"), "bad line"));
    }
    let secret = intake["webhook_secret"].as_str();
    let secret =
        secret.map(|secret| format!("\nwebhook secret (not shown again): {secret}")).unwrap_or_default();
    format!("batch {}: {}{secret}", intake["batch"].as_str().unwrap_or_default(), parts.join(", "))
}

fn tell_bad_lines(intake: &Value, bad: u64) {
    let errors = intake["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    for line in errors.iter().take(SHOWN) {
        eprintln!("line {}: {}", line["line"], plain(line["error"].as_str().unwrap_or_default()));
    }
    if bad > SHOWN as u64 {
        eprintln!("… and {} more bad lines: the server lists them under bad-lines", bad - SHOWN as u64);
    }
}

/// A name as a shell takes it.
fn quoted(name: &str) -> String {
    let simple = |letter: char| letter.is_ascii_alphanumeric() || "-_./:".contains(letter);
    if name.chars().all(simple) { name.to_owned() } else { format!("'{}'", name.replace('\'', "'\\''")) }
}

/// The bytes of the file, as they are read, and its name without the ending.
async fn open(what: &str) -> anyhow::Result<(Body, Option<String>)> {
    let path = Path::new(if what == "-" { "/dev/stdin" } else { what });
    let fail = |cause: &dyn std::fmt::Display| {
        Usage(format!("job file {what} cannot be read: {cause} (for one question give VIDEO and QUESTION)"))
    };
    let file = tokio::fs::File::open(path).await.map_err(|cause| fail(&cause))?;
    if file.metadata().await.map_err(|cause| fail(&cause))?.is_dir() {
        return Err(fail(&"it is a folder").into());
    }
    let stem = path.file_stem().filter(|_| what != "-").map(|stem| stem.to_string_lossy().into_owned());
    Ok((stream(file), stem))
}

fn stream(reader: impl AsyncRead + Send + Unpin + 'static) -> Body {
    Body::wrap_stream(futures::stream::try_unfold(reader, async |mut reader| {
        let mut piece = vec![0; PIECE];
        let read = reader.read(&mut piece).await?;
        piece.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then_some((piece, reader)))
    }))
}
