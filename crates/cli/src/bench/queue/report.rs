//! The table, the file of figures, and what the server does for the statements.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use spectemp_store::Explained;

use super::{Figures, QueueBench, Rate, Times};

pub(super) fn table(figures: &Figures) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(["what", "calls", "jobs/s", "p50 ms", "p99 ms", "most ms", "wanted"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut rate = |what: &str, rate: &Rate, wanted: &str| {
        let per_s = format!("{:.0}", rate.per_s);
        table.add_row([what, &rate.jobs.to_string(), &per_s, "", "", "", wanted]);
    };
    rate("submitted by batch", &figures.submitted_by_batch, "≥ 5000 jobs/s");
    rate("submitted one by one, several callers", &figures.submitted_singly, "≥ 500 jobs/s");
    rate("submitted one by one, one caller", &figures.submitted_singly_by_one, "");
    let mut times = |what: &str, times: &Times, wanted: &str| {
        let [p50, p99, most] = [times.p50_ms, times.p99_ms, times.most_ms].map(|ms| format!("{ms:.2}"));
        table.add_row([what, &times.calls.to_string(), "", &p50, &p99, &most, wanted]);
    };
    if let Some(rung) = &figures.submission_to_claim {
        times("submission to claim by an idle worker", rung, "p99 < 100 ms");
    }
    times("claim", &figures.claim, "p99 ≤ 20 ms");
    times("checkpoint", &figures.checkpoint, "p99 ≤ 5 ms");
    times("answer", &figures.finish, "");
    times("counts by state", &figures.counts, "");
    times("a page of 100 waiting jobs", &figures.page, "");
    let mut text = table.to_string();
    let _ = write!(
        text,
        "\n{} jobs waited; {} callers took {:.0} jobs/s through claim, round and answer",
        figures.queued, figures.callers, figures.jobs_per_s
    );
    text
}

pub(super) fn write(arguments: &QueueBench, figures: &Figures) -> anyhow::Result<()> {
    crate::bench::write(arguments.out.as_deref(), "queue.json", figures)
}

/// As Markdown.
pub(super) fn explained(statements: &[Explained]) -> String {
    let mut text = String::new();
    for Explained { name, plan } in statements {
        let _ = write!(text, "### {name}\n\n```text\n{plan}\n```\n\n");
    }
    text
}
