//! S3 Inventory: the bucket's own daily or weekly list of itself, for buckets that are too large to list. A report is a
//! `manifest.json` that names files of gzipped CSV. Files in Parquet or ORC are refused: the report can be set to CSV.
//!
//! A file is fetched to the disk and read from there row by row, so memory does not grow with it. An inventory is as old
//! as its report; what it does not know yet comes with the next one.

use std::{
    fs::File,
    io::{BufReader, Seek as _},
};

use csv::StringRecord;
use flate2::read::MultiGzDecoder;
use futures::{Stream, StreamExt as _, stream};
use object_store::ObjectStoreExt as _;
use serde::Deserialize;
use spectemp_types::VideoUri;
use tokio::{io::AsyncWriteExt as _, sync::mpsc};

use super::{
    pages::{PAGE, Seen, SeenPage},
    ranges::Range,
};
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

/// Where the columns stand in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Columns {
    key: usize,
    size: usize,
    modified: Option<usize>,
    etag: Option<usize>,
    storage_class: Option<usize>,
    is_latest: Option<usize>,
    is_delete_marker: Option<usize>,
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
    Columns::of(&manifest.file_schema)
        .map_err(|cause| StoreError::Invalid(format!("inventory {uri}: {cause}")))?;
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
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|cause| invalid(format!("no manifest.json: {cause}")))?;
    match manifest.file_format.eq_ignore_ascii_case("csv") {
        true => Ok(manifest),
        false => Err(invalid(format!("its files are {}: set the report to CSV", manifest.file_format))),
    }
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

impl Columns {
    fn of(schema: &str) -> Result<Self, String> {
        let names: Vec<String> = schema.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
        let at = |name: &str| names.iter().position(|column| column == name);
        let needed =
            |name: &str| at(name).ok_or_else(|| format!("its files have no column {name}: {schema:?}"));
        Ok(Self {
            key: needed("key")?,
            size: needed("size")?,
            modified: at("lastmodifieddate"),
            etag: at("etag"),
            storage_class: at("storageclass"),
            is_latest: at("islatest"),
            is_delete_marker: at("isdeletemarker"),
        })
    }

    /// The object of a row; `None` for old versions, deleted objects and other folders.
    fn read(&self, row: &StringRecord, folder: &str) -> Option<Seen> {
        let text = |at: Option<usize>| at.and_then(|at| row.get(at)).filter(|text| !text.is_empty());
        if text(self.is_latest) == Some("false") || text(self.is_delete_marker) == Some("true") {
            return None;
        }
        // Keys are written as in the query of a URL.
        let key = location::decoded(&row.get(self.key)?.replace('+', " "))?;
        if !key.starts_with(folder) {
            return None;
        }
        let bytes = text(Some(self.size)).and_then(|text| text.parse().ok()).unwrap_or(0);
        let modified =
            text(self.modified).and_then(|text| text.parse::<chrono::DateTime<chrono::Utc>>().ok());
        let modified_ms = modified.map_or(0, |time| time.timestamp_millis());
        Some(Seen {
            etag: Seen::etag_of(text(self.etag), modified_ms, bytes),
            key,
            bytes,
            modified_ms,
            storage_class: text(self.storage_class).map(str::to_owned),
            restored: None,
        })
    }
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
        let columns = read_manifest(locations, &manifest).await?.file_schema;
        let columns = Columns::of(&columns).map_err(StoreError::Invalid)?;
        let uri = location::object_in(&manifest, key)?;
        let file = fetch(locations, &uri).await?;
        let (sender, pages) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            let rows = Rows { columns, folder: &folder, skip: done, name: &uri.redacted() };
            if let Err(error) = rows.send(file, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        Ok(pages)
    };
    stream::once(opened).flat_map(|opened| match opened {
        Ok(pages) => {
            stream::unfold(pages, |mut pages| async move { Some((pages.recv().await?, pages)) }).boxed()
        }
        Err(error) => stream::iter([Err(error)]).boxed(),
    })
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

struct Rows<'a> {
    columns: Columns,
    folder: &'a str,
    /// Rows that are done.
    skip: u64,
    name: &'a str,
}

impl Rows<'_> {
    fn send(&self, file: File, to: &mpsc::Sender<Result<SeenPage, StoreError>>) -> Result<(), StoreError> {
        let failed =
            |cause: csv::Error| StoreError::Corrupt { what: self.name.to_owned(), cause: cause.to_string() };
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(MultiGzDecoder::new(BufReader::new(file)));
        let mut page = SeenPage::default();
        let mut row = StringRecord::new();
        let mut number = 0_u64;
        while reader.read_record(&mut row).map_err(failed)? {
            number += 1;
            if number <= self.skip {
                continue;
            }
            page.objects.extend(self.columns.read(&row, self.folder));
            if page.objects.len() == PAGE {
                page.position = number.to_string();
                if to.blocking_send(Ok(std::mem::take(&mut page))).is_err() {
                    return Ok(());
                }
            }
        }
        page.position = number.to_string();
        page.done = true;
        let _ = to.blocking_send(Ok(page));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_the_schema() {
        let schema =
            "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass";
        let columns = Columns::of(schema).unwrap();
        let read = |fields: [&str; 9]| columns.read(&StringRecord::from(fields.to_vec()), "in/");
        let row =
            ["b", "in/a+b%2B%25.mp4", "v", "true", "false", "7", "2026-03-01T00:00:00.000Z", "e1", "GLACIER"];
        let seen = read(row).unwrap();
        assert_eq!((seen.key.as_str(), seen.bytes, seen.etag.as_str()), ("in/a b+%.mp4", 7, "e1"));
        assert_eq!((seen.modified_ms, seen.storage_class.as_deref()), (1_772_323_200_000, Some("GLACIER")));
        let with = |at: usize, text: &'static str| {
            let mut row = row;
            row[at] = text;
            read(row)
        };
        assert!(with(3, "false").is_none(), "an old version");
        assert!(with(4, "true").is_none(), "a deleted object");
        assert!(with(1, "other/a.mp4").is_none());
        assert!(Columns::of("Bucket, Size").is_err());
        assert!(is_dated("2026-03-01T01-00Z/") && !is_dated("hive/") && !is_dated("data/"));
    }
}
