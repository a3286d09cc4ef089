//! Results of a batch of any size, for tools that read folders of Parquet files (DuckDB, Spark):
//!
//! ```text
//! answers/part-00000.parquet …   the columns of `answers.parquet`
//! errors.jsonl                   lines that became no job, then failed jobs
//! manifest.json                  last: names the parts with rows, bytes and SHA-256
//! ```
//!
//! A part is written on the disk first and put in place whole, so memory and disk are bounded by one part. A batch that
//! is exported again overwrites its parts and removes those that are too many; the manifest says which belong together.

use std::io::{self, Write};

use futures::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spectemp_types::VideoUri;

use super::{PAGE, lines, parquet_file::ParquetFile, publish::Draft};
use crate::{JobFilter, LedgerReader, Locations, StoreError, keys::hex, location};

/// Version of the columns; it grows when columns are added.
const SCHEMA_VERSION: u32 = 1;

/// A batch to export.
#[derive(Clone, Copy, Debug)]
pub struct BatchExport<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// The batch.
    pub batch: &'a str,
    /// Folder or URI prefix.
    pub results: &'a VideoUri,
}

/// How large a part becomes.
#[derive(Clone, Copy, Debug)]
pub struct PartLimits {
    /// Most rows.
    pub rows: u64,
    /// Bytes after which the next part begins.
    pub bytes: u64,
}

impl Default for PartLimits {
    fn default() -> Self {
        Self { rows: 1_000_000, bytes: 256 << 20 }
    }
}

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this file's own form.
    pub version: u32,
    /// Whose.
    pub tenant: String,
    /// The batch.
    pub batch: String,
    /// When it was written, milliseconds since 1970.
    pub written_ms: i64,
    /// The answers.
    pub answers: ManifestTable,
    /// The errors.
    pub errors: ManifestPart,
}

/// A table in parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestTable {
    /// Version of its columns.
    pub schema_version: u32,
    /// Rows of all parts.
    pub rows: u64,
    /// The parts, in order.
    pub parts: Vec<ManifestPart>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestPart {
    /// Where it lies, relative to the manifest.
    pub path: String,
    /// Its rows or lines.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// Of its content, hexadecimal.
    pub sha256: String,
}

/// Writes all parts, the errors and the manifest.
///
/// # Errors
/// [`StoreError::Full`], [`StoreError::Io`], [`StoreError::Object`], [`StoreError::Location`]. No manifest is written
/// then; an older one stays.
pub async fn export_batch(
    ledger: &LedgerReader,
    locations: &Locations,
    job: &BatchExport<'_>,
    limits: PartLimits,
) -> Result<Manifest, StoreError> {
    locations.check_folder(job.results)?;
    let export = Export { ledger, locations, job, limits };
    let parts = export.answers().await?;
    let errors = export.errors().await?;
    export.remove_from(parts.len()).await?;
    let manifest = Manifest {
        version: 1,
        tenant: job.tenant.to_owned(),
        batch: job.batch.to_owned(),
        written_ms: chrono::Utc::now().timestamp_millis(),
        answers: ManifestTable {
            schema_version: SCHEMA_VERSION,
            rows: parts.iter().map(|part| part.rows).sum(),
            parts,
        },
        errors,
    };
    let mut draft = export.draft("manifest.json")?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(StoreError::corrupt("manifest.json"))?;
    draft.write_all(&text).map_err(StoreError::io("write", std::path::Path::new("manifest.json")))?;
    draft.inner.publish(locations).await?;
    Ok(manifest)
}

struct Export<'a> {
    ledger: &'a LedgerReader,
    locations: &'a Locations,
    job: &'a BatchExport<'a>,
    limits: PartLimits,
}

impl Export<'_> {
    fn filter(&self) -> JobFilter<'_> {
        JobFilter { tenant: Some(self.job.tenant), batch: Some(self.job.batch), ..JobFilter::default() }
    }

    fn draft(&self, path: &str) -> Result<Summed<Draft>, StoreError> {
        let target = location::join(self.job.results, path)?;
        self.locations.check(&target)?;
        Ok(Summed::new(Draft::begin(target)?))
    }

    async fn answers(&self) -> Result<Vec<ManifestPart>, StoreError> {
        let mut parts = Vec::new();
        let mut after = None;
        // A batch without answers has one part without rows: readers find the columns.
        while after.is_some() || parts.is_empty() {
            let path = part_path(parts.len());
            let mut file = ParquetFile::begin(self.draft(&path)?)?;
            let mut rows = 0;
            while rows < self.limits.rows && file.bytes() < self.limits.bytes {
                let room = usize::try_from(self.limits.rows - rows).unwrap_or(PAGE).min(PAGE);
                let page = self.ledger.answers_of(&self.filter(), after, room).await?;
                file.rows(&page.rows)?;
                rows += page.rows.len() as u64;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            // The last page was full by chance.
            if rows == 0 && !parts.is_empty() {
                break;
            }
            parts.push(self.put(file.end()?, path, rows).await?);
        }
        Ok(parts)
    }

    async fn errors(&self) -> Result<ManifestPart, StoreError> {
        let path = "errors.jsonl";
        let (mut file, mut rows) = (self.draft(path)?, 0);
        let BatchExport { tenant, batch, .. } = *self.job;
        let mut after = None;
        loop {
            let page = self.ledger.bad_lines(tenant, batch, after, PAGE).await?;
            for bad in &page.rows {
                file.line(&lines::bad_line(bad))?;
            }
            rows += page.rows.len() as u64;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        loop {
            let page = self.ledger.failures_of(&self.filter(), after, PAGE).await?;
            for row in &page.rows {
                file.line(&lines::failure(row))?;
            }
            rows += page.rows.len() as u64;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        self.put(file, path.to_owned(), rows).await
    }

    async fn put(&self, file: Summed<Draft>, path: String, rows: u64) -> Result<ManifestPart, StoreError> {
        let (bytes, sha256) = (file.bytes, hex(&file.sum.finalize()));
        file.inner.publish(self.locations).await?;
        Ok(ManifestPart { path, rows, bytes, sha256 })
    }

    /// Removes parts of an earlier export that this one has not written again.
    async fn remove_from(&self, parts: usize) -> Result<(), StoreError> {
        let folder = location::join(self.job.results, "answers")?;
        let place = self.locations.resolve(&folder)?;
        let failed = || StoreError::object(&folder);
        let mut listed = place.store.list(Some(&place.path));
        while let Some(object) = listed.try_next().await.map_err(failed())? {
            let number = object.location.filename().and_then(part_number);
            if number.is_some_and(|number| number >= parts) {
                place.store.delete(&object.location).await.map_err(failed())?;
            }
        }
        Ok(())
    }
}

fn part_path(number: usize) -> String {
    format!("answers/part-{number:05}.parquet")
}

fn part_number(name: &str) -> Option<usize> {
    name.strip_prefix("part-")?.strip_suffix(".parquet")?.parse().ok()
}

/// Counts and hashes what goes through it.
pub(super) struct Summed<W> {
    inner: W,
    bytes: u64,
    sum: Sha256,
}

impl<W> Summed<W> {
    fn new(inner: W) -> Self {
        Self { inner, bytes: 0, sum: Sha256::new() }
    }
}

impl Summed<Draft> {
    fn line(&mut self, value: &impl Serialize) -> Result<(), StoreError> {
        let mut line = serde_json::to_vec(value).map_err(StoreError::corrupt("a line of results"))?;
        line.push(b'\n');
        self.write_all(&line).map_err(StoreError::io("write", std::path::Path::new("errors.jsonl")))
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_through_is_counted_and_hashed() {
        let mut summed = Summed::new(Vec::new());
        summed.write_all(b"ab").unwrap();
        summed.write_all(b"c").unwrap();
        assert_eq!((summed.inner.as_slice(), summed.bytes), (b"abc".as_slice(), 3));
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&summed.sum.finalize()), abc);
        assert_eq!(part_number("part-00012.parquet"), Some(12));
        assert_eq!(part_number("part-x.parquet"), None);
    }
}
