//! `answers.parquet`: one row per answer, the columns of the view `answers` (docs/sql.md), lists as lists.

use std::{io::Write, sync::Arc};

use arrow_array::{
    ArrayRef, Float64Array, ListArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array,
    UInt64Array,
    builder::{Float64Builder, ListBuilder, StringBuilder},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use crate::{AnsweredJob, StoreError};

/// Bytes of rows that wait to be written: a row group takes so much memory at most, and a page of rows more.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// A Parquet file being written.
pub(super) struct ParquetFile<W: Write + Send> {
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> ParquetFile<W> {
    pub(super) fn begin(to: W) -> Result<Self, StoreError> {
        let level = ZstdLevel::try_new(3).map_err(failed)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        // An empty batch gives the schema, so that a file without rows has its columns too.
        let schema = batch(&[])?.schema();
        Ok(Self { writer: ArrowWriter::try_new(to, schema, Some(properties)).map_err(failed)? })
    }

    pub(super) fn rows(&mut self, rows: &[AnsweredJob]) -> Result<(), StoreError> {
        self.writer.write(&batch(rows)?).map_err(failed)?;
        match self.writer.memory_size() > ROW_GROUP_BYTES {
            true => self.writer.flush().map_err(failed),
            false => Ok(()),
        }
    }

    /// What it holds so far, about.
    pub(super) fn bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    pub(super) fn end(self) -> Result<W, StoreError> {
        self.writer.into_inner().map_err(failed)
    }
}

fn failed(error: parquet::errors::ParquetError) -> StoreError {
    match crate::error::no_space(&error) {
        true => StoreError::Full { what: "answers.parquet".to_owned() },
        false => StoreError::Object { key: "answers.parquet".to_owned(), cause: error.to_string() },
    }
}

fn batch(rows: &[AnsweredJob]) -> Result<RecordBatch, StoreError> {
    let mut columns = what_was_asked(rows)?;
    columns.extend(what_was_answered(rows));
    columns.extend(what_it_cost(rows));
    RecordBatch::try_from_iter_with_nullable(columns)
        .map_err(|error| StoreError::Object { key: "answers.parquet".to_owned(), cause: error.to_string() })
}

type Column = (&'static str, ArrayRef, bool);

fn what_was_asked(rows: &[AnsweredJob]) -> Result<Vec<Column>, StoreError> {
    let mut settings = Vec::with_capacity(rows.len());
    let mut strategies = Vec::with_capacity(rows.len());
    for row in rows {
        let value =
            serde_json::to_value(&row.job.spec.plan.settings).map_err(StoreError::corrupt("settings"))?;
        strategies.push(value["strategy"].as_str().map(str::to_owned));
        settings.push(Some(value.to_string()));
    }
    Ok(vec![
        texts("job_id", rows, |row| Some(row.job.id.to_string())),
        texts("id", rows, |row| Some(row.job.spec.id.clone())),
        texts("batch", rows, |row| Some(row.job.batch.clone())),
        texts("video", rows, |row| Some(row.job.spec.video.redacted())),
        nullable_texts("video_etag", rows, |row| row.answer.video.etag.clone()),
        numbers("video_s", rows, |row| row.answer.video.duration_s),
        texts("question", rows, |row| Some(row.job.spec.question.text.clone())),
        ("choices", Arc::new(choices(rows)), false),
        texts("plan", rows, |row| Some(row.job.spec.plan.name.clone())),
        ("strategy", Arc::new(StringArray::from(strategies)), false),
        ("settings", Arc::new(StringArray::from(settings)), false),
    ])
}

fn what_was_answered(rows: &[AnsweredJob]) -> Vec<Column> {
    let confidence =
        rows.iter().map(|row| Some(row.answer.answer.confidence).filter(|value| value.is_finite()));
    let first = |row: &AnsweredJob| row.answer.answer.evidence.first().map(|span| (span.start_s, span.end_s));
    let time = |of: fn(&AnsweredJob) -> i64| {
        TimestampMillisecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC")
    };
    vec![
        texts("answer", rows, |row| Some(row.answer.answer.text.clone())),
        nullable_texts("choice", rows, |row| row.answer.answer.choice.map(String::from)),
        ("confidence", Arc::new(Float64Array::from_iter(confidence)), true),
        (
            "start_s",
            Arc::new(Float64Array::from_iter(rows.iter().map(|row| first(row).map(|span| span.0)))),
            true,
        ),
        (
            "end_s",
            Arc::new(Float64Array::from_iter(rows.iter().map(|row| first(row).map(|span| span.1)))),
            true,
        ),
        ("frames_s", Arc::new(frames(rows)), false),
        texts("target", rows, |row| Some(row.answer.target.name.clone())),
        texts("target_revision", rows, |row| Some(row.answer.target.revision.clone())),
        nullable_texts("draft", rows, |row| row.answer.draft.as_ref().map(|draft| draft.name.clone())),
        nullable_texts("draft_revision", rows, |row| {
            row.answer.draft.as_ref().map(|draft| draft.revision.clone())
        }),
        ("created_at", Arc::new(time(|row| row.job.created_ms)), false),
        ("answered_at", Arc::new(time(|row| row.answer.answered_ms)), false),
    ]
}

fn what_it_cost(rows: &[AnsweredJob]) -> Vec<Column> {
    vec![
        counts32("rounds", rows, |row| row.answer.totals.rounds),
        counts32("target_frames", rows, |row| row.answer.totals.target_frames),
        counts32("draft_frames", rows, |row| row.answer.totals.draft_frames),
        counts("text_tokens", rows, |row| row.answer.totals.tokens.text),
        counts("visual_tokens", rows, |row| row.answer.totals.tokens.visual),
        counts("reused_tokens", rows, |row| row.answer.totals.tokens.reused),
        counts("generated_tokens", rows, |row| row.answer.totals.tokens.generated),
        counts("requests", rows, |row| row.answer.totals.io.requests),
        counts("bytes", rows, |row| row.answer.totals.io.bytes),
        counts("decoded_frames", rows, |row| row.answer.totals.io.decoded_frames),
        numbers("fetch_ms", rows, |row| row.answer.totals.times.fetch_ms),
        numbers("decode_ms", rows, |row| row.answer.totals.times.decode_ms),
        numbers("vision_ms", rows, |row| row.answer.totals.times.vision_ms),
        numbers("prefill_ms", rows, |row| row.answer.totals.times.prefill_ms),
        numbers("generate_ms", rows, |row| row.answer.totals.times.generate_ms),
        counts32("attempts", rows, |row| row.job.attempts),
    ]
}

fn texts(name: &'static str, rows: &[AnsweredJob], of: fn(&AnsweredJob) -> Option<String>) -> Column {
    (name, Arc::new(StringArray::from_iter(rows.iter().map(of))), false)
}

fn nullable_texts(
    name: &'static str,
    rows: &[AnsweredJob],
    of: fn(&AnsweredJob) -> Option<String>,
) -> Column {
    (name, Arc::new(StringArray::from_iter(rows.iter().map(of))), true)
}

fn numbers(name: &'static str, rows: &[AnsweredJob], of: fn(&AnsweredJob) -> f64) -> Column {
    (name, Arc::new(Float64Array::from_iter_values(rows.iter().map(of))), false)
}

fn counts(name: &'static str, rows: &[AnsweredJob], of: fn(&AnsweredJob) -> u64) -> Column {
    (name, Arc::new(UInt64Array::from_iter_values(rows.iter().map(of))), false)
}

fn counts32(name: &'static str, rows: &[AnsweredJob], of: fn(&AnsweredJob) -> u32) -> Column {
    (name, Arc::new(UInt32Array::from_iter_values(rows.iter().map(of))), false)
}

fn choices(rows: &[AnsweredJob]) -> ListArray {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in rows {
        for choice in &row.job.spec.question.choices {
            lists.values().append_value(choice);
        }
        lists.append(true);
    }
    lists.finish()
}

/// The frames of the first span, which is the only one today.
fn frames(rows: &[AnsweredJob]) -> ListArray {
    let mut lists = ListBuilder::new(Float64Builder::new());
    for row in rows {
        if let Some(span) = row.answer.answer.evidence.first() {
            lists.values().append_slice(&span.frames_s);
        }
        lists.append(true);
    }
    lists.finish()
}
