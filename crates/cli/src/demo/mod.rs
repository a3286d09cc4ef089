//! `spectemp demo`: an archive is generated, the embedded pair is asked about it with three strategies, and what came
//! of it is printed and written as a report.

mod archive;
mod asking;
mod clock;
pub(crate) mod models;
mod outcome;
mod score;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::Args;
use spectemp_demo::{Archive, ArchiveOptions};

use self::{
    asking::{Asking, CONTENDERS},
    outcome::Outcome,
};
use crate::{args::DeviceArgs, context::Context, output::Usage, run::start, run::words};

/// Arguments of `spectemp demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Videos of one to twenty minutes, one question each [default: 12, with --large 60].
    #[arg(long, value_name = "N", conflicts_with = "lengths")]
    videos: Option<usize>,
    /// A broader archive.
    #[arg(long, conflicts_with = "lengths")]
    large: bool,
    /// Videos of exactly these lengths instead, in seconds (40 to 2000): for figures by length.
    #[arg(long, value_name = "SECONDS,…", value_delimiter = ',')]
    lengths: Vec<u32>,
    /// Questions per length, each about a video of its own.
    #[arg(long, value_name = "N", requires = "lengths", default_value_t = 25)]
    questions: usize,
    /// Frame rates to choose from, in frames per second (2 to 30).
    #[arg(long, value_name = "FPS,…", value_delimiter = ',', default_values_t = [2, 4, 8])]
    fps: Vec<u32>,
    /// Seed of the archive.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Go on with an earlier run of that name [default: a new run, named after the time].
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    run: Option<String>,
    /// Questions that are under way at once.
    #[arg(long, value_name = "N", default_value_t = 4)]
    concurrency: usize,
    /// Folder of the report [default: demo/NAME in the home].
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Write the figures as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl DemoArgs {
    /// What the archive holds.
    fn archive(&self) -> ArchiveOptions {
        let seconds = if self.lengths.is_empty() {
            let count = self.videos.unwrap_or(if self.large { 60 } else { 12 });
            Archive::spread(count, 60, 1200)
        } else {
            self.lengths.iter().flat_map(|length| std::iter::repeat_n(*length, self.questions)).collect()
        };
        ArchiveOptions { seconds, fps: self.fps.clone(), questions_per_video: 1 }
    }
}

/// The name of a run is part of batches, folders and printed commands.
fn run_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match text.chars().all(plain) && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        true => Ok(text.to_owned()),
        false => {
            Err("a name has letters, digits, - _ and . only, and begins with a letter or digit".to_owned())
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: DemoArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let plan = Archive::plan(args.seed, &args.archive()).map_err(|cause| Usage(cause.to_string()))?;
    let name = args.run.clone().unwrap_or_else(|| format!("demo-{}", clock::compact(clock::now())));
    let stop = start::stop_on_signals()?;
    let Some(home) = start::open_home(context, &stop).await? else { return Ok(start::interrupted()) };

    let started = Instant::now();
    let files = archive::make(plan, &home.cache_dir("demo")?, stop.soft.clone()).await?;
    let Some(files) = files else { return Ok(start::interrupted()) };
    let made = if files.made == 0 { "all there already".to_owned() } else { format!("{} made", files.made) };
    eprintln!("archive: {} ({made} in {})", files.in_words(), words::duration(started.elapsed()));

    let asking = Asking {
        home: &home,
        videos: &files.videos,
        name: &name,
        concurrency: args.concurrency,
        device: &args.device,
        stop: &stop,
        context,
    };
    let mut asked = Vec::new();
    for contender in &CONTENDERS {
        let started = Instant::now();
        eprintln!("asking {} with {}", words::count(files.questions(), "question"), contender.name);
        let Some(answers) = asking.of(contender).await? else {
            eprintln!("stopped; to go on: spectemp demo --run {name} with the same options");
            return Ok(start::interrupted());
        };
        eprintln!("{}: {}", contender.name, words::duration(started.elapsed()));
        asked.push((contender.name, answers));
    }
    let outcome = Outcome::new(&name, &files, asked);
    outcome.tell(&home, &args, context).await
}
