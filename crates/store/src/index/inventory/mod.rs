//! S3 Inventory: the bucket's own daily or weekly list of itself, for buckets that are too large to list. A report is a
//! `manifest.json` that names files of gzipped CSV or of Parquet. ORC is refused: the report can be set to one of these.
//!
//! A file is fetched to the disk and read from there row by row, so memory does not grow with it. An inventory is as old
//! as its report; what it does not know yet comes with the next one.

mod csv_file;
mod gather;
mod parquet_file;

use std::{fs::File, io::Seek as _};

use futures::{Stream, StreamExt as _, stream};
use object_store::ObjectStoreExt as _;
use serde::Deserialize;
use spectemp_types::VideoUri;
use tokio::{io::AsyncWriteExt as _, sync::mpsc, task::JoinHandle};

use self::{csv_file::Columns, gather::Gatherer};
use super::{pages::SeenPage, ranges::Range};
use crate::{Locations, StoreError, location};

/// A manifest is small: a few hundred bytes per file.
const MOST_MANIFEST_BYTES: u64 = 64 << 20;
/// Stands between manifest and key; neither holds one.
const BETWEEN: char = '\n';
/// Pages that wait while others are worked on.
const AHEAD: usize = 2;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    source_bucket: String,
    file_format: String,
    file_schema: String,
    files: Vec<ManifestFile>,
}

#[derive(Deserialize)]
struct ManifestFile {
    key: String,
}

/// How the rows of a report's files are read.
#[derive(Debug)]
enum Form {
    /// The columns stand in the manifest only.
    Csv(Columns),
    /// The columns stand in each file.
    Parquet,
}

impl Manifest {
    fn form(&self) -> Result<Form, String> {
        match self.file_format.to_ascii_lowercase().as_str() {
            "csv" => Columns::of(&self.file_schema).map(Form::Csv),
            "parquet" => Ok(Form::Parquet),
            _ => Err(format!("its files are {}: set the report to CSV or Parquet", self.file_format)),
        }
    }
}

/// The files of the report at `uri`, which must be about the bucket of `prefix`: each as manifest and key, since a newer
/// report may come while this one is read.
pub(super) async fn files(
    locations: &Locations,
    uri: &VideoUri,
    prefix: &VideoUri,
) -> Result<Vec<String>, StoreError> {
    let uri = newest(locations, uri).await?;
    let manifest = read_manifest(locations, &uri).await?;
    // Compared as URIs: the bucket's name may stand for other spellings of its prefix.
    let bucket = location::object_in(prefix, "x")?.redacted();
    if !bucket.ends_with(&format!("://{}/x", manifest.source_bucket)) {
        let about = manifest.source_bucket;
        return Err(StoreError::Invalid(format!(
            "inventory {uri}: it is about the bucket {about:?}, the index about {prefix}"
        )));
    }
    manifest.form().map_err(|cause| StoreError::Invalid(format!("inventory {uri}: {cause}")))?;
    Ok(manifest.files.into_iter().map(|file| format!("{uri}{BETWEEN}{}", file.key)).collect())
}

async fn read_manifest(locations: &Locations, uri: &VideoUri) -> Result<Manifest, StoreError> {
    let invalid = |cause: String| StoreError::Invalid(format!("inventory {uri}: {cause}"));
    let place = locations.resolve(uri)?;
    let got = place.store.get(&place.path).await.map_err(StoreError::object(uri))?;
    if got.meta.size > MOST_MANIFEST_BYTES {
        return Err(invalid("its manifest is too large".to_owned()));
    }
    let bytes = got.bytes().await.map_err(StoreError::object(uri))?;
    serde_json::from_slice(&bytes).map_err(|cause| invalid(format!("no manifest.json: {cause}")))
}

/// `uri` itself where it is a manifest; in a folder of reports, the manifest of the newest.
async fn newest(locations: &Locations, uri: &VideoUri) -> Result<VideoUri, StoreError> {
    if uri.expose().ends_with(".json") {
        return Ok(uri.clone());
    }
    let failed = |cause| StoreError::Object { key: uri.redacted(), cause };
    let none =
        || StoreError::Invalid(format!("inventory {uri}: no folder like 2026-03-01T01-00Z/ lies in it"));
    let (bucket, _) = locations.s3_folder(uri)?.ok_or_else(none)?;
    let folder = location::folder_key(uri)?;
    let mut reports = Vec::new();
    let mut after = String::new();
    loop {
        let page = bucket.page(&folder, &after, true).await.map_err(failed)?;
        let last = page.folders.last().cloned();
        reports.extend(page.folders.into_iter().filter(|name| is_dated(&name[folder.len()..])));
        match last.filter(|_| page.more) {
            Some(last) => after = format!("{last}\u{10ffff}"),
            None => break,
        }
    }
    // Their names sort by time. The folder of a report that is being written has no manifest yet.
    reports.sort_unstable();
    for report in reports.iter().rev().take(3) {
        let manifest = location::object_in(uri, &format!("{report}manifest.json"))?;
        let place = locations.resolve(&manifest)?;
        match place.store.head(&place.path).await {
            Ok(_) => return Ok(manifest),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(StoreError::object(&manifest)(error)),
        }
    }
    Err(none())
}

/// True for names such as `2026-03-01T01-00Z/`.
fn is_dated(name: &str) -> bool {
    let shape: String = name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00-00Z/"
}

/// The rows of one file that are not done yet.
pub(super) fn pages<'a>(
    locations: &'a Locations,
    folder: String,
    range: &Range,
) -> impl Stream<Item = Result<SeenPage, StoreError>> + use<'a> {
    let (source, done) = (range.source.clone(), range.position.parse().unwrap_or(0));
    let opened = async move {
        let (manifest, key) = source.split_once(BETWEEN).unwrap_or_default();
        let manifest = VideoUri::parse(manifest).map_err(location::LocationError::from)?;
        let form = read_manifest(locations, &manifest).await?.form().map_err(StoreError::Invalid)?;
        let uri = location::object_in(&manifest, key)?;
        let file = fetch(locations, &uri).await?;
        let (sender, pages) = mpsc::channel(AHEAD);
        let name = uri.redacted();
        let read = move || {
            let gatherer = Gatherer::new(&folder, done, &sender);
            let corrupt = |cause| StoreError::Corrupt { what: name, cause };
            match form {
                Form::Csv(columns) => csv_file::read(file, columns, gatherer).map_err(corrupt),
                Form::Parquet => parquet_file::read(file, gatherer).map_err(corrupt),
            }
        };
        Ok(Reading { pages, reader: Some(tokio::task::spawn_blocking(read)), name: uri.redacted() })
    };
    stream::once(opened).flat_map(|opened| match opened {
        Ok(reading) => {
            stream::unfold(reading, |mut reading| async move { Some((reading.next().await?, reading)) })
                .boxed()
        }
        Err(error) => stream::iter([Err(error)]).boxed(),
    })
}

/// A file that is being read on a thread of its own.
struct Reading {
    pages: mpsc::Receiver<SeenPage>,
    reader: Option<JoinHandle<Result<(), StoreError>>>,
    name: String,
}

impl Reading {
    /// The next page; behind the last one, why the reader ended.
    async fn next(&mut self) -> Option<Result<SeenPage, StoreError>> {
        if let Some(page) = self.pages.recv().await {
            return Some(Ok(page));
        }
        // A file that broke its reader must not pass for one that has ended.
        match self.reader.take()?.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(cause) => {
                Some(Err(StoreError::Corrupt { what: self.name.clone(), cause: cause.to_string() }))
            }
        }
    }
}

async fn fetch(locations: &Locations, uri: &VideoUri) -> Result<File, StoreError> {
    let place = locations.resolve(uri)?;
    let got = place.store.get(&place.path).await.map_err(StoreError::object(uri))?;
    let temporary = std::env::temp_dir();
    let mut file = tokio::fs::File::from_std(
        tempfile::tempfile().map_err(StoreError::io("make a file in", &temporary))?,
    );
    let mut bytes = got.into_stream();
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(StoreError::object(uri))?;
        file.write_all(&chunk).await.map_err(StoreError::io("write in", &temporary))?;
    }
    file.flush().await.map_err(StoreError::io("write in", &temporary))?;
    let mut file = file.into_std().await;
    file.rewind().map_err(StoreError::io("read in", &temporary))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_files_is_told_by_the_manifest() {
        let form = |file_format: &str, file_schema: &str| {
            let (file_format, file_schema) = (file_format.to_owned(), file_schema.to_owned());
            Manifest { source_bucket: "b".to_owned(), file_format, file_schema, files: Vec::new() }.form()
        };
        assert!(matches!(form("CSV", "Bucket, Key, Size"), Ok(Form::Csv(_))));
        assert!(matches!(form("Parquet", "message s3.inventory {}"), Ok(Form::Parquet)));
        assert!(form("CSV", "Bucket, Size").unwrap_err().contains("no column key"));
        assert!(form("ORC", "struct<>").unwrap_err().contains("set the report to CSV or Parquet"));
    }

    #[test]
    fn reports_lie_in_dated_folders() {
        assert!(is_dated("2026-03-01T01-00Z/") && !is_dated("hive/") && !is_dated("data/"));
    }
}
