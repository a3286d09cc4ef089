//! `spectemp run --dry-run`: opens every video and says what the jobs would cost. No model is loaded and nothing is
//! written: frame sizes are those of a stock Qwen2.5-VL, bounded by the plans' settings.

use std::{collections::HashMap, process::ExitCode, sync::Arc};

use comfy_table::{CellAlignment, Table, presets};
use futures::{StreamExt as _, stream};
use spectemp_engine::{
    Abilities, Between, Estimate, FrameSource as _, ModelCard, PixelBudget, PromptTemplates, VideoFacts,
    estimate,
};
use spectemp_store::{Home, LedgerReader, Locations};
use spectemp_types::{JobSpec, ModelRevision, VideoUri};
use spectemp_video::{OpenOptions, Video, VideoObject};
use spectemp_worker::JobFile;

use super::{
    RunArgs, start, tell_bad_lines,
    words::{count, duration},
};
use crate::{context::Context, output};

/// Videos that are opened at once.
const AT_ONCE: usize = 8;

/// The jobs on one video.
struct Group {
    uri: VideoUri,
    jobs: Vec<JobSpec>,
}

/// What is known of a group once its video was opened.
struct Found {
    group: Group,
    facts: Result<VideoFacts, String>,
}

/// Prints the table.
pub(super) async fn run(args: &RunArgs, file: JobFile, context: &Context) -> anyhow::Result<ExitCode> {
    tell_bad_lines(&file.bad);
    // The home is only read: what an earlier run learnt of a video need not be read again.
    let home = Home::open_reader(&context.home_dir()?).await.ok();
    let timeout = start::timeout(context)?;
    let open = OpenOptions { allow_scan: args.allow_scan, timeout, ..OpenOptions::default() };
    let opener =
        Opener { locations: Locations::default(), ledger: home.map(|home| home.ledger().clone()), open };
    let opener = Arc::new(opener);

    let found: Vec<Found> = stream::iter(groups(file.jobs.into_iter().map(|job| job.spec)))
        .map(|group| {
            let opener = opener.clone();
            async move { Found { facts: opener.facts(&group.uri).await, group } }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let missing = found.iter().filter(|found| found.facts.is_err()).count();
    output::print(&report(&found)?)?;
    let problems = missing + file.bad.len();
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Jobs by video, in the order of their first lines.
fn groups(specs: impl Iterator<Item = JobSpec>) -> Vec<Group> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for spec in specs {
        let place = *places.entry(spec.video.expose().to_owned()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.jobs.push(spec),
            None => groups.push(Group { uri: spec.video.clone(), jobs: vec![spec] }),
        }
    }
    groups
}

struct Opener {
    locations: Locations,
    ledger: Option<LedgerReader>,
    open: OpenOptions,
}

impl Opener {
    async fn facts(&self, uri: &VideoUri) -> Result<VideoFacts, String> {
        let location = self.locations.resolve(uri).map_err(|cause| cause.to_string())?;
        let object = VideoObject { store: location.store, path: location.path, uri: uri.clone() };
        let row = match &self.ledger {
            Some(ledger) => ledger.video(uri).await.map_err(|cause| cause.to_string())?,
            None => None,
        };
        let known = row.and_then(|row| serde_json::from_slice(&row.record).ok());
        let video = Video::open(object, self.open.clone(), known).await.map_err(|cause| cause.to_string())?;
        Ok(video.facts())
    }
}

fn report(found: &[Found]) -> anyhow::Result<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["video", "seconds", "jobs", "frames", "tokens"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut sum = Estimate::default();
    let videos = found.len();
    let (mut seconds, mut jobs, mut missing) = (0.0, 0, 0);
    for Found { group, facts } in found {
        jobs += group.jobs.len();
        let facts = match facts {
            Ok(facts) => *facts,
            Err(cause) => {
                missing += 1;
                table.add_row([group.uri.to_string(), cause.clone(), group.jobs.len().to_string()]);
                continue;
            }
        };
        let cost = cost(&group.jobs, facts)?;
        sum += cost;
        seconds += facts.duration_s;
        table.add_row([
            group.uri.to_string(),
            format!("{:.1}", facts.duration_s),
            group.jobs.len().to_string(),
            range(cost.frames()),
            range(cost.tokens()),
        ]);
    }
    let mut lines = vec![
        table.trim_fmt(),
        format!(
            "{} of {} found, {} of video, {}: {} frames and {} tokens (least to most; text of the prompts not counted)",
            videos - missing,
            count(videos, "video"),
            duration(std::time::Duration::from_secs_f64(seconds)),
            count(jobs, "job"),
            range(sum.frames()),
            range(sum.tokens()),
        ),
    ];
    if missing > 0 {
        lines.push(format!("{} cannot be opened", count(missing, "video")));
    }
    Ok(lines.join("\n"))
}

fn cost(jobs: &[JobSpec], facts: VideoFacts) -> anyhow::Result<Estimate> {
    let card = stock_card();
    let mut sum = Estimate::default();
    for job in jobs {
        sum += estimate(&job.plan.settings, facts, &card, Some(&card))?;
    }
    Ok(sum)
}

/// A stock Qwen2.5-VL, as far as frame sizes go.
pub(crate) fn stock_card() -> ModelCard {
    ModelCard {
        revision: ModelRevision { name: "Qwen2.5-VL".to_owned(), revision: String::new() },
        pixels: PixelBudget { min_pixels: 56 * 56, max_pixels: 28 * 28 * 16_384, multiple: 28 },
        templates: PromptTemplates { target: None, draft: None },
        context_tokens: 128_000,
        abilities: Abilities { constraint: true, probabilities: true, seeds: true },
    }
}

pub(crate) fn range(between: Between) -> String {
    if between.least == between.most {
        between.least.to_string()
    } else {
        format!("{}–{}", between.least, between.most)
    }
}
