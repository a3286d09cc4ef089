//! `spectemp probe`: what a video says of itself.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};

use crate::{context::Context, open, output};

/// Arguments of `spectemp probe`.
#[derive(Args)]
pub(crate) struct ProbeArgs {
    /// The video: a path, or a URI (file, s3, gs, az, http, https).
    uri: String,
    /// Read the whole object where nothing else tells its length.
    #[arg(long)]
    allow_scan: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs `spectemp probe`.
pub(crate) async fn run(args: ProbeArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let video = open::open_video(&args.uri, args.allow_scan, context).await?;
    let (probe, io) = (video.probe(), video.io());
    let mut value = serde_json::to_value(probe)?;
    value["io"] = serde_json::json!({
        "requests": io.requests, "bytes": io.bytes, "object_bytes": probe.object_bytes,
    });
    if args.json {
        output::print_json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let serde_json::Value::Object(fields) = value {
        for (name, field) in fields {
            table.add_row([name.replace('_', " "), plain(&field)]);
        }
    }
    output::print(&table.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

/// A field for people: ratios as `a:b`, objects as `name value` pairs.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Object(map) if map.len() == 2 && map.contains_key("num") => {
            format!("{}:{}", plain(&map["num"]), plain(&map["den"]))
        }
        serde_json::Value::Object(map) => {
            let fields: Vec<String> = map
                .iter()
                .map(|(name, field)| format!("{} {}", name.replace('_', " "), plain(field)))
                .collect();
            fields.join(", ")
        }
        other => other.to_string(),
    }
}
