//! Values bound to a statement.
//!
//! Postgres has no NUL in texts and `jsonb`. A model may well write one, so it becomes U+FFFD there; SQLite keeps it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value as Json;
use spectemp_types::{JobId, VideoId};
use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo, types::Oid},
    types::Uuid,
};

use crate::StoreError;

/// One bound value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Real(Option<f64>),
    Bool(Option<bool>),
    Blob(Vec<u8>),
    Id(Uuid),
    /// `jsonb` in Postgres.
    Jsonb(Option<String>),
    /// `json` in Postgres: kept as it was written.
    Json(String),
}

impl Value {
    /// For a `jsonb` column.
    pub(crate) fn jsonb(what: &str, value: &impl Serialize) -> Result<Self, StoreError> {
        serde_json::to_string(value).map(|text| Self::Jsonb(Some(text))).map_err(StoreError::corrupt(what))
    }

    /// For a `json` column, or a list that the statement takes apart.
    pub(crate) fn json(what: &str, value: &impl Serialize) -> Result<Self, StoreError> {
        serde_json::to_string(value).map(Self::Json).map_err(StoreError::corrupt(what))
    }

    /// A list of ids, for the tokens `{ids_…}`.
    pub(crate) fn ids(ids: impl IntoIterator<Item = JobId>) -> Self {
        let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
        Self::Json(Json::from(ids).to_string())
    }
}

/// `text` without NUL.
pub(super) fn clean_text(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// The JSON `text` without NUL in its strings, which JSON spells `\u0000`.
pub(super) fn clean_json(text: String) -> String {
    const SPELT: &str = "\\u0000";
    if !text.contains(SPELT) {
        return text;
    }
    // Escape by escape, so that an escaped backslash before `u0000` is not taken for the beginning of one.
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(place) = rest.find('\\') {
        let (before, escape) = rest.split_at(place);
        clean.push_str(before);
        let taken = if escape.starts_with(SPELT) {
            clean.push('\u{fffd}');
            SPELT.len()
        } else {
            let taken = escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end);
            clean.push_str(&escape[..taken]);
            taken
        };
        rest = &escape[taken..];
    }
    clean.push_str(rest);
    clean
}

/// A text that Postgres reads as `json`.
pub(super) struct PgJson(pub(super) String);

impl Type<Postgres> for PgJson {
    fn type_info() -> PgTypeInfo {
        const JSON: u32 = 114;
        PgTypeInfo::with_oid(Oid(JSON))
    }
}

impl Encode<'_, Postgres> for PgJson {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

/// A text that Postgres reads as `jsonb`.
pub(super) struct PgJsonb(pub(super) String);

impl Type<Postgres> for PgJsonb {
    fn type_info() -> PgTypeInfo {
        const JSONB: u32 = 3802;
        PgTypeInfo::with_oid(Oid(JSONB))
    }
}

impl Encode<'_, Postgres> for PgJsonb {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // Version of the binary form.
        buffer.push(1);
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

macro_rules! value_from {
    ($($from:ty, $value:ident => $to:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $to
            }
        })*
    };
}

value_from! {
    &str, value => Value::Text(Some(value.to_owned()));
    String, value => Value::Text(Some(value));
    &String, value => Value::Text(Some(value.clone()));
    Cow<'_, str>, value => Value::Text(Some(value.into_owned()));
    Option<&str>, value => Value::Text(value.map(str::to_owned));
    Option<String>, value => Value::Text(value);
    i64, value => Value::Int(Some(value));
    i32, value => Value::Int(Some(value.into()));
    u32, value => Value::Int(Some(value.into()));
    u64, value => Value::Int(Some(value as i64));
    usize, value => Value::Int(Some(value as i64));
    Option<i64>, value => Value::Int(value);
    f64, value => Value::Real(Some(value));
    Option<f64>, value => Value::Real(value);
    bool, value => Value::Bool(Some(value));
    Option<bool>, value => Value::Bool(value);
    &[u8], value => Value::Blob(value.to_vec());
    &Vec<u8>, value => Value::Blob(value.clone());
    JobId, value => Value::Id(value.as_uuid());
    VideoId, value => Value::Id(value.as_uuid());
}

#[cfg(test)]
mod tests {
    use super::{clean_json, clean_text};

    #[test]
    fn nul_becomes_the_replacement_character_and_nothing_else_changes() {
        assert_eq!(clean_text("a\0b".into()), "a\u{fffd}b");
        for text in ["a\0b", "\0", "\\u0000", "\\\0", "\\\\u0000 \0\0 \u{1}ü\n", "no escape", "\\"] {
            let json = serde_json::to_string(text).unwrap();
            let clean: String = serde_json::from_str(&clean_json(json)).unwrap();
            assert_eq!(clean, text.replace('\0', "\u{fffd}"), "{text:?}");
        }
    }
}
