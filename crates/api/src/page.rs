//! Pages of a list: a limit, and a cursor that only this API can read.

use serde::{Deserialize, Deserializer};
use spectemp_store::Cursor;

use crate::error::ApiError;

/// Rows of a page where the request names no number.
const DEFAULT_ROWS: usize = 100;
/// Most rows of a page.
pub(crate) const MOST_ROWS: usize = 1000;

/// `limit` of a request.
pub(crate) fn limit(asked: Option<u32>) -> Result<usize, ApiError> {
    match asked.map_or(DEFAULT_ROWS, |rows| rows as usize) {
        rows @ 1..=MOST_ROWS => Ok(rows),
        other => Err(ApiError::Invalid(format!("limit is {other}, but must be 1 to {MOST_ROWS}"))),
    }
}

/// `cursor` of a request.
pub(crate) fn after(asked: Option<&str>) -> Result<Option<Cursor>, ApiError> {
    let parse = |text: &str| {
        text.parse().map_err(|_| {
            ApiError::Invalid("cursor is none of this list: take `next` of the page before".to_owned())
        })
    };
    asked.map(parse).transpose()
}

/// A text of a filter: an empty one is none.
pub(crate) fn filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    match text {
        Some(text) if text.chars().any(char::is_control) => {
            Err(serde::de::Error::custom("a filter holds control characters"))
        }
        text => Ok(text),
    }
}
