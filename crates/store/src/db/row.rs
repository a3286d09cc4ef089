//! Rows as either database gives them. A value that does not fit is a damaged ledger, not a panic.

use std::{fmt::Display, str::FromStr};

use serde::de::DeserializeOwned;
use sqlx::{
    Decode, Postgres, Row as _, Sqlite, Type,
    postgres::PgRow,
    sqlite::SqliteRow,
    types::{Json, Uuid},
};

use crate::StoreError;

/// One row.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column may be read as: `String`, `i64`, `f64`, `bool`, `Vec<u8>`, options of them.
pub(crate) trait Column<'r>:
    Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}

impl<'r, T> Column<'r> for T where T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{}

impl Row {
    /// The column `name`.
    pub(crate) fn get<'r, T: Column<'r>>(&'r self, name: &str) -> Result<T, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => row.try_get(name),
        }
        .map_err(|cause| damaged(name, &cause))
    }

    /// An integer column that counts something.
    pub(crate) fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, StoreError> {
        let number: i64 = self.get(name)?;
        T::try_from(number).map_err(|_| damaged(name, &format!("{number} is out of range")))
    }

    /// An id.
    pub(crate) fn id<T: From<Uuid>>(&self, name: &str) -> Result<T, StoreError> {
        let id = match self {
            Self::Sqlite(_) => self.parse(name)?,
            Self::Postgres(row) => row.try_get::<Uuid, _>(name).map_err(|cause| damaged(name, &cause))?,
        };
        Ok(T::from(id))
    }

    /// A text column parsed as `T`.
    pub(crate) fn parse<T>(&self, name: &str) -> Result<T, StoreError>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text: &str = self.get(name)?;
        text.parse().map_err(|cause: T::Err| StoreError::Corrupt {
            what: format!("{name} {text:?}"),
            cause: cause.to_string(),
        })
    }

    /// A JSON column of `owner`.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str, owner: impl Display) -> Result<T, StoreError> {
        self.optional_json(name, &owner)?.ok_or_else(|| StoreError::Corrupt {
            what: format!("{name} of {owner}"),
            cause: "it is null".to_owned(),
        })
    }

    /// A JSON column of `owner` that may be null.
    pub(crate) fn optional_json<T: DeserializeOwned>(
        &self,
        name: &str,
        owner: &impl Display,
    ) -> Result<Option<T>, StoreError> {
        let corrupt = |cause: String| StoreError::Corrupt { what: format!("{name} of {owner}"), cause };
        match self {
            Self::Sqlite(_) => {
                let text: Option<&str> = self.get(name)?;
                text.map(serde_json::from_str).transpose().map_err(|cause| corrupt(cause.to_string()))
            }
            Self::Postgres(row) => row
                .try_get::<Option<Json<T>>, _>(name)
                .map(|json| json.map(|json| json.0))
                .map_err(|cause| corrupt(cause.to_string())),
        }
    }
}

fn damaged(name: &str, cause: &impl Display) -> StoreError {
    StoreError::Corrupt { what: format!("column {name} of the ledger"), cause: cause.to_string() }
}
