//! A file of gzipped CSV.

use std::{borrow::Cow, fs::File, io::BufReader};

use csv::StringRecord;
use flate2::read::MultiGzDecoder;

use super::gather::{Gatherer, InventoryRow};
use crate::location;

/// Where the columns stand in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Columns {
    key: usize,
    size: usize,
    modified: Option<usize>,
    etag: Option<usize>,
    storage_class: Option<usize>,
    is_latest: Option<usize>,
    is_delete_marker: Option<usize>,
}

impl Columns {
    /// As the manifest's `fileSchema` lists them: `Bucket, Key, Size, …`.
    pub(super) fn of(schema: &str) -> Result<Self, String> {
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

    fn row<'r>(&self, row: &'r StringRecord) -> Option<InventoryRow<'r>> {
        let text = |at: Option<usize>| at.and_then(|at| row.get(at)).filter(|text| !text.is_empty());
        let modified =
            text(self.modified).and_then(|text| text.parse::<chrono::DateTime<chrono::Utc>>().ok());
        Some(InventoryRow {
            // Keys are written as in the query of a URL.
            key: Cow::Owned(location::decoded(&row.get(self.key)?.replace('+', " "))?),
            bytes: text(Some(self.size)).and_then(|text| text.parse().ok()).unwrap_or(0),
            modified_ms: modified.map_or(0, |time| time.timestamp_millis()),
            etag: text(self.etag),
            storage_class: text(self.storage_class),
            is_latest: text(self.is_latest).map(|text| text != "false"),
            is_delete_marker: text(self.is_delete_marker).map(|text| text == "true"),
        })
    }
}

/// Reads the rows that are not done yet.
pub(super) fn read(file: File, columns: Columns, mut gatherer: Gatherer<'_>) -> Result<(), String> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).from_reader(MultiGzDecoder::new(BufReader::new(file)));
    let mut row = StringRecord::new();
    let mut to_skip = gatherer.done();
    while reader.read_record(&mut row).map_err(|cause| cause.to_string())? {
        if to_skip > 0 {
            to_skip -= 1;
        } else if gatherer.take(columns.row(&row)).is_break() {
            return Ok(());
        }
    }
    gatherer.end();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_the_schema() {
        let schema =
            "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass";
        let columns = Columns::of(schema).unwrap();
        let read = |fields: [&str; 9]| columns.row(&StringRecord::from(fields.to_vec()))?.seen("in/");
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
    }
}
