//! A Parquet file, read page by page of the needed columns only, so that memory does not grow with it or its row groups.
//!
//! Its columns are `bucket`, `key`, `version_id`, `is_latest`, `is_delete_marker`, `size`, `last_modified_date`, `e_tag`,
//! `storage_class` and more. Keys are written as they are: only those in CSV are URL-encoded
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html>, "Inventory list").

use std::{borrow::Cow, fs::File};

use arrow_array::{
    Array, BooleanArray, Int64Array, RecordBatch, StringArray,
    cast::AsArray as _,
    types::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType},
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    file::metadata::ParquetMetaData,
};

use super::gather::{Gatherer, InventoryRow};
use crate::index::pages::PAGE;

/// The columns that are read, and whether the report must have them.
const COLUMNS: [(&str, bool); 7] = [
    ("key", true),
    ("size", true),
    ("last_modified_date", false),
    ("e_tag", false),
    ("storage_class", false),
    ("is_latest", false),
    ("is_delete_marker", false),
];

/// Reads the rows that are not done yet.
pub(super) fn read(file: File, mut gatherer: Gatherer<'_>) -> Result<(), String> {
    for batch in open(file, gatherer.done())? {
        let batch = batch.map_err(|cause| cause.to_string())?;
        let rows = Rows::of(&batch)?;
        for at in 0..batch.num_rows() {
            if gatherer.take(rows.row(at)).is_break() {
                return Ok(());
            }
        }
    }
    gatherer.end();
    Ok(())
}

/// The rows behind the first `skip`.
fn open(file: File, skip: u64) -> Result<ParquetRecordBatchReader, String> {
    // An Arrow schema that the writer may have left there could ask for other types than Parquet's own.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(|cause| cause.to_string())?;
    let names: Vec<&str> =
        builder.parquet_schema().root_schema().get_fields().iter().map(|field| field.name()).collect();
    let mut roots = Vec::with_capacity(COLUMNS.len());
    for (name, needed) in COLUMNS {
        match names.iter().position(|column| *column == name) {
            Some(at) => roots.push(at),
            None if needed => {
                return Err(format!("it has no column {name}, only {names:?}: let the report have it"));
            }
            None => {}
        }
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let (groups, skip) = groups_behind(builder.metadata(), skip);
    builder
        .with_projection(mask)
        .with_batch_size(PAGE)
        .with_row_groups(groups)
        .with_offset(skip)
        .build()
        .map_err(|cause| cause.to_string())
}

/// The row groups that hold rows behind the first `skip`, and how many of theirs are to be skipped.
fn groups_behind(metadata: &ParquetMetaData, mut skip: u64) -> (Vec<usize>, usize) {
    let mut first = 0;
    for group in metadata.row_groups() {
        match u64::try_from(group.num_rows()) {
            Ok(rows) if rows <= skip => skip -= rows,
            _ => break,
        }
        first += 1;
    }
    ((first..metadata.num_row_groups()).collect(), usize::try_from(skip).unwrap_or(usize::MAX))
}

/// The needed columns of some rows.
struct Rows<'a> {
    key: &'a StringArray,
    size: &'a Int64Array,
    modified_ms: Option<Vec<i64>>,
    etag: Option<&'a StringArray>,
    storage_class: Option<&'a StringArray>,
    is_latest: Option<&'a BooleanArray>,
    is_delete_marker: Option<&'a BooleanArray>,
}

impl<'a> Rows<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, String> {
        let texts = |name| column(batch, name, "text", |array| array.as_string_opt());
        let flags = |name| column(batch, name, "boolean", |array| array.as_boolean_opt());
        let missing = |name: &str| format!("it has no column {name}");
        Ok(Self {
            key: texts("key")?.ok_or_else(|| missing("key"))?,
            size: column(batch, "size", "int64", |array| array.as_primitive_opt())?
                .ok_or_else(|| missing("size"))?,
            modified_ms: column(batch, "last_modified_date", "a timestamp", times_ms)?,
            etag: texts("e_tag")?,
            storage_class: texts("storage_class")?,
            is_latest: flags("is_latest")?,
            is_delete_marker: flags("is_delete_marker")?,
        })
    }

    fn row(&self, at: usize) -> Option<InventoryRow<'a>> {
        let text = |array: Option<&'a StringArray>| {
            array
                .filter(|array| array.is_valid(at))
                .map(|array| array.value(at))
                .filter(|text| !text.is_empty())
        };
        let flag = |array: Option<&BooleanArray>| {
            array.filter(|array| array.is_valid(at)).map(|array| array.value(at))
        };
        Some(InventoryRow {
            key: Cow::Borrowed(text(Some(self.key))?),
            // A delete marker has no size.
            bytes: if self.size.is_valid(at) { self.size.value(at).try_into().unwrap_or(0) } else { 0 },
            modified_ms: self.modified_ms.as_ref().map_or(0, |times| times[at]),
            etag: text(self.etag),
            storage_class: text(self.storage_class),
            is_latest: flag(self.is_latest),
            is_delete_marker: flag(self.is_delete_marker),
        })
    }
}

/// The column of that name, if the report has it; it must be of the type that `of` looks for.
fn column<'a, T>(
    batch: &'a RecordBatch,
    name: &str,
    kind: &str,
    of: impl FnOnce(&'a dyn Array) -> Option<T>,
) -> Result<Option<T>, String> {
    let Some(array) = batch.column_by_name(name) else { return Ok(None) };
    match of(array.as_ref()) {
        Some(column) => Ok(Some(column)),
        None => Err(format!("its column {name} is {}, not {kind}", array.data_type())),
    }
}

/// Times in milliseconds, 0 where there is none.
fn times_ms(array: &dyn Array) -> Option<Vec<i64>> {
    let millis = array.as_primitive_opt::<TimestampMillisecondType>().map(|times| (times.values(), 1));
    let micros = || array.as_primitive_opt::<TimestampMicrosecondType>().map(|times| (times.values(), 1000));
    let nanos =
        || array.as_primitive_opt::<TimestampNanosecondType>().map(|times| (times.values(), 1_000_000));
    let (values, per_ms) = millis.or_else(micros).or_else(nanos)?;
    let time = |(at, value): (usize, &i64)| if array.is_valid(at) { value.div_euclid(per_ms) } else { 0 };
    Some(values.iter().enumerate().map(time).collect())
}
