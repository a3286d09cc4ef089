//! Indexes as rows: made, listed, paused, deleted, held by the one process that lists.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{IndexFigures, IndexSpec, schedule::next_after};
use crate::{
    Ledger, LedgerReader, StoreError,
    db::{Row, query},
    keys::check_tenant,
};

/// The housekeeping leaves an index alone for so long after a listing that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(300);

/// Names an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IndexId(Uuid);

impl IndexId {
    pub(super) fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for IndexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for IndexId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// An index and how its last listing went.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Names it everywhere.
    pub id: IndexId,
    /// Whose it is.
    pub tenant: String,
    /// Names it for its tenant.
    pub name: String,
    /// What it is.
    pub spec: IndexSpec,
    /// The batch of its jobs.
    pub batch: String,
    /// True while nothing is listed.
    pub paused: bool,
    /// True where somebody asked for a listing that has not begun.
    pub wanted: bool,
    /// Number of the current or last listing; 0 before the first.
    pub run: u64,
    /// True while a listing has begun and not ended, whether or not a process is at it just now.
    pub listing: bool,
    /// When the listing began, milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// What stopped the last try.
    pub error: Option<String>,
    /// When it was made.
    pub created_ms: i64,
    /// What the current or last listing has come to so far.
    pub figures: IndexFigures,
    /// Ranges of keys that are done …
    pub ranges_done: u64,
    /// … of so many.
    pub ranges: u64,
}

const COLUMNS: &str =
    "id, tenant, name, spec, batch, paused, wanted, run, listing, started_at, ended_at, error, created_at";

fn read(row: &Row) -> Result<Index, StoreError> {
    let name: String = row.get("name")?;
    let spec: String = row.get("spec")?;
    Ok(Index {
        id: row.parse("id")?,
        tenant: row.get("tenant")?,
        spec: serde_json::from_str(&spec).map_err(StoreError::corrupt(format!("index {name:?}")))?,
        name,
        batch: row.get("batch")?,
        paused: row.get("paused")?,
        wanted: row.get("wanted")?,
        run: row.number("run")?,
        listing: row.get("listing")?,
        started_ms: row.get("started_at")?,
        ended_ms: row.get("ended_at")?,
        error: row.get("error")?,
        created_ms: row.get("created_at")?,
        figures: IndexFigures::default(),
        ranges_done: 0,
        ranges: 0,
    })
}

impl LedgerReader {
    /// The index of that name.
    ///
    /// # Errors
    /// [`StoreError::NoIndex`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn index(&self, tenant: &str, name: &str) -> Result<Index, StoreError> {
        let text = format!("select {COLUMNS} from ledger_indexes where tenant = $1 and name = $2");
        let row = query("look up an index", text).bind(tenant).bind(name).optional(&self.reads).await?;
        let row = row.ok_or_else(|| StoreError::NoIndex(name.to_owned()))?;
        self.with_figures(read(&row)?).await
    }

    /// The index `id`.
    ///
    /// # Errors
    /// As [`Self::index`].
    pub async fn index_by_id(&self, id: IndexId) -> Result<Index, StoreError> {
        let text = format!("select {COLUMNS} from ledger_indexes where id = $1");
        let row = query("look up an index", text).bind(id.to_string()).optional(&self.reads).await?;
        let row = row.ok_or_else(|| StoreError::NoIndex(id.to_string()))?;
        self.with_figures(read(&row)?).await
    }

    /// All indexes by name, those of one tenant where it is given.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn indexes(&self, tenant: Option<&str>) -> Result<Vec<Index>, StoreError> {
        let text = format!(
            "select {COLUMNS} from ledger_indexes where (cast($1 as text) is null or tenant = $1) order by tenant, name"
        );
        let rows = query("list indexes", text).bind(tenant).all(&self.reads).await?;
        let mut indexes = Vec::with_capacity(rows.len());
        for row in &rows {
            indexes.push(self.with_figures(read(row)?).await?);
        }
        Ok(indexes)
    }

    async fn with_figures(&self, mut index: Index) -> Result<Index, StoreError> {
        for range in self.index_ranges(index.id).await? {
            index.figures += range.figures;
            index.ranges += 1;
            index.ranges_done += u64::from(range.done);
        }
        Ok(index)
    }

    /// Indexes that should be listed now: their schedule says so, somebody asked for it, or a listing was interrupted.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn due_indexes(&self) -> Result<Vec<IndexId>, StoreError> {
        let text = "select id, schedule, (listing or wanted) as at_once, coalesce(started_at, created_at) as since, \
                    {now} as now from ledger_indexes where not paused and (schedule is not null or listing or wanted) \
                    and (held_until is null or held_until < {now})";
        let mut due = Vec::new();
        for row in query("look for due indexes", text).all(&self.reads).await? {
            let (now, since): (i64, i64) = (row.get("now")?, row.get("since")?);
            let scheduled = match row.get::<Option<String>>("schedule")? {
                Some(schedule) => next_after(&schedule, since)?.is_some_and(|next| next <= now),
                None => false,
            };
            if scheduled || row.get("at_once")? {
                due.push(row.parse("id")?);
            }
        }
        Ok(due)
    }
}

impl Ledger {
    /// Makes an index. Nothing is listed yet. [`IndexSpec::check`] comes first.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a bad or taken name; [`StoreError::Database`].
    pub async fn create_index(
        &self,
        tenant: &str,
        name: &str,
        spec: &IndexSpec,
    ) -> Result<Index, StoreError> {
        check_tenant(tenant)?;
        check_name(name)?;
        let id = IndexId::new();
        let spec_text = serde_json::to_string(spec).map_err(StoreError::corrupt("an index"))?;
        let made = query(
            "make an index",
            "insert into ledger_indexes (id, tenant, name, spec, batch, schedule, created_at) \
             values ($1, $2, $3, $4, $5, $6, {now}) on conflict (tenant, name) do nothing",
        )
        .bind(id.to_string())
        .bind(tenant)
        .bind(name)
        .bind(spec_text)
        .bind(format!("index:{name}"))
        .bind(spec.schedule.clone())
        .execute(&self.writes)
        .await?;
        match made {
            0 => Err(StoreError::Invalid(format!("there is an index {name:?} already: delete it first"))),
            _ => self.index_by_id(id).await,
        }
    }

    /// Stops or resumes an index; a listing stops at its next page and goes on from there later.
    ///
    /// # Errors
    /// [`StoreError::NoIndex`], [`StoreError::Database`].
    pub async fn pause_index(&self, id: IndexId, paused: bool) -> Result<(), StoreError> {
        let text = "update ledger_indexes set paused = $2 where id = $1";
        let done =
            query("pause an index", text).bind(id.to_string()).bind(paused).execute(&self.writes).await?;
        found(done, id)
    }

    /// Asks for a listing, which [`LedgerReader::due_indexes`] tells to whoever lists.
    ///
    /// # Errors
    /// [`StoreError::NoIndex`], [`StoreError::Database`].
    pub async fn want_listing(&self, id: IndexId) -> Result<(), StoreError> {
        // Who asks does not wait for the pause after a failure.
        let text = "update ledger_indexes set wanted = true, \
                    held_until = case when holder is null then null else held_until end where id = $1";
        found(query("ask for a listing", text).bind(id.to_string()).execute(&self.writes).await?, id)
    }

    /// Forgets an index and its catalogue. Its jobs and their answers stay.
    ///
    /// # Errors
    /// [`StoreError::NoIndex`], [`StoreError::Database`].
    pub async fn delete_index(&self, id: IndexId) -> Result<(), StoreError> {
        let text = "delete from ledger_indexes where id = $1";
        found(query("delete an index", text).bind(id.to_string()).execute(&self.writes).await?, id)
    }

    /// Takes hold of an index for `holder`, or keeps it; false where another process has it, or it is paused or gone.
    pub(super) async fn hold_index(
        &self,
        id: IndexId,
        holder: &str,
        time: Duration,
    ) -> Result<bool, StoreError> {
        let text = "update ledger_indexes set holder = $2, held_until = {now} + $3 where id = $1 and not paused \
                    and (held_until is null or held_until < {now} or holder = $2 or holder is null)";
        let hold =
            query("hold an index", text).bind(id.to_string()).bind(holder).bind(time.as_millis() as i64);
        Ok(hold.execute(&self.writes).await? > 0)
    }

    /// Lets go of an index; `error` says what stopped the listing. It is not due for a while then.
    pub(super) async fn let_index_go(
        &self,
        id: IndexId,
        holder: &str,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let text = "update ledger_indexes set holder = null, error = $3, \
                    held_until = case when $4 > 0 then {now} + $4 else null end where id = $1 and holder = $2";
        let update = query("let go of an index", text).bind(id.to_string()).bind(holder).bind(error);
        let pause = if error.is_some() { AFTER_FAILURE.as_millis() as i64 } else { 0 };
        update.bind(pause).execute(&self.writes).await.map(|_| ())
    }
}

fn found(rows: u64, id: IndexId) -> Result<(), StoreError> {
    if rows > 0 { Ok(()) } else { Err(StoreError::NoIndex(id.to_string())) }
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match !name.is_empty() && name.len() <= 100 && name.chars().all(plain) {
        true => Ok(()),
        false => Err(StoreError::Invalid(format!(
            "index name {name:?}: use up to 100 letters, digits, `.`, `_` and `-`"
        ))),
    }
}
