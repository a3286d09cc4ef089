//! Results of a batch as files: `answers.jsonl`, `errors.jsonl` and `answers.parquet`, in a local folder or under any
//! URI. Each is written aside and then put in place in one step, so that a reader never sees half of one; each is
//! complete for the ledger as it is, in job order.

mod lines;
mod parquet_file;
mod parts;
mod publish;

pub use parts::{BatchExport, Manifest, ManifestPart, ManifestTable, PartLimits, export_batch};

use spectemp_types::VideoUri;

use crate::{LedgerReader, Locations, StoreError, location};

use parquet_file::ParquetFile;
use publish::Draft;

/// Rows that are held in memory at a time.
const PAGE: usize = 1000;

/// A line of the job file that became no job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub error: String,
}

/// What to export, and where to.
#[derive(Clone, Copy, Debug)]
pub struct ExportJob<'a> {
    /// The batch.
    pub batch: &'a str,
    /// Folder or URI prefix; a local folder is made if it is missing.
    pub results: &'a VideoUri,
    /// Lines that became no job: they lead `errors.jsonl`.
    pub bad_lines: &'a [BadLine],
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Rows of `answers.jsonl` and `answers.parquet`.
    pub answers: u64,
    /// Rows of `errors.jsonl`.
    pub errors: u64,
}

/// Writes all three files.
///
/// # Errors
/// [`StoreError::Full`], [`StoreError::Io`], [`StoreError::Object`], [`StoreError::Location`]; files that were in place
/// stay as they were.
pub async fn export(
    ledger: &LedgerReader,
    locations: &Locations,
    job: &ExportJob<'_>,
) -> Result<ExportReport, StoreError> {
    let place = |name: &str| location::join(job.results, name);
    let mut answers = Draft::begin(place("answers.jsonl")?)?;
    let mut table = ParquetFile::begin(Draft::begin(place("answers.parquet")?)?)?;
    let mut errors = Draft::begin(place("errors.jsonl")?)?;
    let mut report = ExportReport::default();

    let mut after = None;
    loop {
        let page = ledger.answers(job.batch, after, PAGE).await?;
        for row in &page.rows {
            answers.line(&lines::answer(row))?;
        }
        table.rows(&page.rows)?;
        report.answers += page.rows.len() as u64;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    for bad in job.bad_lines {
        errors.line(&lines::bad_line(bad))?;
        report.errors += 1;
    }
    loop {
        let page = ledger.failures(job.batch, after, PAGE).await?;
        for row in &page.rows {
            errors.line(&lines::failure(row))?;
        }
        report.errors += page.rows.len() as u64;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    // The tables first: who waits for answers.jsonl to appear finds the others there.
    errors.publish(locations).await?;
    table.end()?.publish(locations).await?;
    answers.publish(locations).await?;
    Ok(report)
}
