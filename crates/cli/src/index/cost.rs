//! What the jobs of an index would cost. No video is opened: how long the videos are is assumed.

use clap::Args;
use spectemp_engine::{Estimate, VideoFacts, estimate};
use spectemp_store::{DryRun, IndexSpec};

use crate::run::dry_run::{range, stock_card};

/// What is assumed about videos that are not opened.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct AssumedArgs {
    /// Length of a video for the estimate of --dry-run.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0)]
    assume_seconds: f64,
}

/// The report of a dry run.
pub(super) fn report(spec: &IndexSpec, plan: &DryRun, assumed: &AssumedArgs) -> anyhow::Result<String> {
    let figures = &plan.figures;
    let videos = figures.new + figures.changed;
    let facts = VideoFacts { duration_s: assumed.assume_seconds, width: 1920, height: 1080 };
    let card = stock_card();
    let mut sum = Estimate::default();
    for question in &spec.questions {
        let cost = estimate(&question.plan.settings, facts, &card, Some(&card))?;
        for between in
            [&mut sum.target_frames, &mut sum.draft_frames, &mut sum.visual_tokens, &mut sum.new_tokens]
                .into_iter()
                .zip([cost.target_frames, cost.draft_frames, cost.visual_tokens, cost.new_tokens])
        {
            let (total, one) = between;
            total.least += one.least * videos;
            total.most += one.most * videos;
        }
    }
    Ok(format!(
        "{} objects listed, {} belong to the index ({} bytes)\n\
         {} new, {} changed, {} to restore or being restored, {} skipped\n\
         {} questions, {} jobs: {} frames and {} tokens (least to most, for videos of {} s at 1920x1080; text of the \
         prompts not counted)",
        figures.listed,
        figures.objects,
        figures.bytes,
        figures.new,
        figures.changed,
        figures.restoring,
        figures.skipped,
        spec.questions.len(),
        figures.jobs,
        range(sum.frames()),
        range(sum.tokens()),
        assumed.assume_seconds,
    ))
}
