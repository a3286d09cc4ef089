//! The catalogue: what is known of each object, and how it is written down together with the position.

use std::collections::HashMap;

use serde::Serialize;

use super::{IndexId, pages::Seen, ranges::Range};
use crate::{
    Ledger, LedgerReader, StoreError,
    db::{Value, query},
};

/// What is known of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) etag: String,
    pub(super) state: State,
    /// Versions of it that were enqueued.
    pub(super) versions: u64,
}

/// Where an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Enqueued,
    Restoring,
    Skipped,
}

impl std::str::FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "enqueued" => Ok(Self::Enqueued),
            "restoring" => Ok(Self::Restoring),
            "skipped" => Ok(Self::Skipped),
            _ => Err(format!("unknown state {text:?}")),
        }
    }
}

/// A row to write.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'a> {
    key: &'a str,
    etag: &'a str,
    bytes: u64,
    modified_at: i64,
    storage_class: Option<&'a str>,
    state: State,
    reason: Option<String>,
    versions: u64,
}

impl<'a> Entry<'a> {
    pub(super) fn new(seen: &'a Seen, state: State, reason: Option<String>, versions: u64) -> Self {
        Self {
            key: &seen.key,
            etag: &seen.etag,
            bytes: seen.bytes,
            modified_at: seen.modified_ms,
            storage_class: seen.storage_class.as_deref(),
            state,
            reason,
            versions,
        }
    }
}

/// Rows per statement.
const CHUNK: usize = 500;

impl LedgerReader {
    /// What is known of these keys.
    pub(super) async fn known_objects(
        &self,
        id: IndexId,
        keys: &[&str],
    ) -> Result<HashMap<String, Known>, StoreError> {
        const WHAT: &str = "read the catalogue";
        let mut known = HashMap::new();
        for keys in keys.chunks(CHUNK) {
            let keys: Vec<_> = keys.iter().map(|key| serde_json::json!({ "key": key })).collect();
            let rows = query(
                WHAT,
                "select o.key, o.etag, o.state, o.versions from {rows_1} \
                 join ledger_index_objects o on o.index_id = $2 and o.key = e.value ->> 'key'",
            )
            .bind(Value::json(WHAT, &keys)?)
            .bind(id.to_string())
            .all(&self.reads)
            .await?;
            for row in rows {
                let entry = Known {
                    etag: row.get("etag")?,
                    state: row.parse("state")?,
                    versions: row.number("versions")?,
                };
                known.insert(row.get("key")?, entry);
            }
        }
        Ok(known)
    }
}

impl Ledger {
    /// Writes what became of a page, and that it is done, in one transaction.
    pub(super) async fn write_page(
        &self,
        id: IndexId,
        entries: &[Entry<'_>],
        range: &Range,
    ) -> Result<(), StoreError> {
        const WHAT: &str = "write the catalogue";
        let mut transaction = self.writes.begin(WHAT).await?;
        for entries in entries.chunks(CHUNK) {
            // `where true`: SQLite would take `on` for a part of the join.
            query(
                WHAT,
                "insert into ledger_index_objects \
                 (index_id, key, etag, bytes, modified_at, storage_class, state, reason, versions, run) \
                 select $2, e.value ->> 'key', e.value ->> 'etag', cast(e.value ->> 'bytes' as bigint), \
                 cast(e.value ->> 'modified_at' as bigint), e.value ->> 'storage_class', e.value ->> 'state', \
                 e.value ->> 'reason', cast(e.value ->> 'versions' as bigint), i.run \
                 from {rows_1} join ledger_indexes i on i.id = $2 where true \
                 on conflict (index_id, key) do update set etag = excluded.etag, bytes = excluded.bytes, \
                 modified_at = excluded.modified_at, storage_class = excluded.storage_class, \
                 state = excluded.state, reason = excluded.reason, versions = excluded.versions, \
                 run = excluded.run",
            )
            .bind(Value::json(WHAT, &entries)?)
            .bind(id.to_string())
            .execute(&mut transaction)
            .await?;
        }
        let figures = serde_json::to_string(&range.figures).map_err(StoreError::corrupt("figures"))?;
        query(
            WHAT,
            "update ledger_index_ranges set position = $3, done = $4, figures = $5 where index_id = $1 and no = $2",
        )
        .bind(id.to_string())
        .bind(range.no)
        .bind(&range.position)
        .bind(range.done)
        .bind(figures)
        .execute(&mut transaction)
        .await?;
        transaction.commit(WHAT).await
    }
}
