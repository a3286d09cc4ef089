//! A table of JSON values as Arrow columns: whole numbers, numbers, truth values or texts, whatever all of a column's
//! values are; a column of nulls is one of texts.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};
use serde_json::Value;
use spectemp_store::SqlTable;

/// The table as a stream of Arrow's IPC format.
pub(super) fn stream(table: &SqlTable) -> Result<Vec<u8>, ArrowError> {
    let batch = batch(table)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    writer.into_inner()
}

/// The table as a Parquet file.
pub(super) fn parquet(table: &SqlTable) -> Result<Vec<u8>, ParquetError> {
    let batch = batch(table)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build()))?;
    writer.write(&batch)?;
    writer.into_inner()
}

fn batch(table: &SqlTable) -> Result<RecordBatch, ArrowError> {
    let columns = (0..table.columns.len()).map(|index| column(table, index));
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = table
        .columns
        .iter()
        .zip(columns)
        .map(|(name, array)| (Field::new(name, array.data_type().clone(), true), array))
        .unzip();
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(table.rows.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
}

fn column(table: &SqlTable, index: usize) -> ArrayRef {
    let values = || table.rows.iter().map(|row| row.get(index).filter(|value| !value.is_null()));
    match kind(values().flatten()) {
        DataType::Int64 => Arc::new(values().map(|value| value?.as_i64()).collect::<Int64Array>()),
        DataType::Float64 => Arc::new(values().map(|value| value?.as_f64()).collect::<Float64Array>()),
        DataType::Boolean => Arc::new(values().map(|value| value?.as_bool()).collect::<BooleanArray>()),
        _ => Arc::new(values().map(|value| value.map(text)).collect::<StringArray>()),
    }
}

/// What all of the values are.
fn kind<'a>(values: impl Iterator<Item = &'a Value> + Clone) -> DataType {
    let all = |is: fn(&Value) -> bool| values.clone().all(is);
    if values.clone().next().is_none() {
        DataType::Utf8
    } else if all(Value::is_i64) {
        DataType::Int64
    } else if all(Value::is_number) {
        DataType::Float64
    } else if all(Value::is_boolean) {
        DataType::Boolean
    } else {
        DataType::Utf8
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_column_has_the_type_that_all_its_values_have() {
        let table = SqlTable {
            columns: ["int", "real", "text", "mixed", "none"].map(str::to_owned).to_vec(),
            rows: vec![
                vec![json!(1), json!(1), json!("a"), json!(1), Value::Null],
                vec![Value::Null, json!(1.5), Value::Null, json!("b"), Value::Null],
            ],
            truncated: false,
        };
        let types: Vec<DataType> =
            batch(&table).unwrap().schema().fields().iter().map(|field| field.data_type().clone()).collect();
        use DataType::{Float64, Int64, Utf8};
        assert_eq!(types, [Int64, Float64, Utf8, Utf8, Utf8]);
        assert!(parquet(&table).unwrap().starts_with(b"PAR1"));
        assert!(!stream(&table).unwrap().is_empty());
    }

    #[test]
    fn a_table_without_rows_is_written() {
        let table = SqlTable { columns: vec!["a".to_owned()], rows: Vec::new(), truncated: false };
        assert!(parquet(&table).unwrap().starts_with(b"PAR1"));
    }
}
