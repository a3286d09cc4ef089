//! A listing cut into ranges of keys, each with its own position.

use super::{IndexFigures, IndexId, IndexSpec, inventory, pages::Source};
use crate::{
    Ledger, LedgerReader, Locations, StoreError,
    db::{Row, Value, query},
};

/// Most ranges of a bucket.
const MOST_RANGES: usize = 16;
/// Pages of folders that are looked at to cut a bucket.
const FOLDER_PAGES: usize = 4;
/// A prefix that holds nothing but one folder is followed down so far.
const MOST_DEPTH: usize = 8;

/// The keys after `after`, up to `up_to`; or the rows of a file of an inventory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Range {
    pub(super) no: u64,
    /// A file of the inventory; empty for the bucket itself.
    pub(super) source: String,
    pub(super) after: String,
    pub(super) up_to: Option<String>,
    /// The last key that is done, or the number of rows.
    pub(super) position: String,
    pub(super) done: bool,
    pub(super) figures: IndexFigures,
}

/// The ranges of a listing from its beginning.
pub(super) async fn plan(locations: &Locations, spec: &IndexSpec) -> Result<Vec<Range>, StoreError> {
    if let Some(uri) = &spec.inventory {
        let files = inventory::files(locations, uri, &spec.prefix).await?;
        let range = |(no, source)| Range { no, source, ..Range::default() };
        return Ok((0..).zip(files).map(range).collect());
    }
    let cuts = match Source::of(locations, spec)? {
        Source::S3 { bucket, folder } => {
            let failed = |cause| StoreError::Object { key: spec.prefix.redacted(), cause };
            cuts(&bucket, &folder).await.map_err(failed)?
        }
        _ => Vec::new(),
    };
    Ok(between(&cuts))
}

/// Folders at which to cut, evenly taken from those under `folder`.
async fn cuts(bucket: &crate::location::S3Bucket, folder: &str) -> Result<Vec<String>, String> {
    let mut folder = folder.to_owned();
    for _ in 0..MOST_DEPTH {
        let mut folders = Vec::new();
        let (mut after, mut objects) = (String::new(), 0);
        for _ in 0..FOLDER_PAGES {
            let page = bucket.page(&folder, &after, true).await?;
            objects += page.objects.len();
            let last_object = page.objects.last().map(|object| object.key.clone()).unwrap_or_default();
            // What follows a folder is what follows every key in it.
            let last_folder =
                page.folders.last().map(|folder| format!("{folder}\u{10ffff}")).unwrap_or_default();
            after = last_object.max(last_folder);
            folders.extend(page.folders);
            if !page.more {
                break;
            }
        }
        match folders.as_slice() {
            [only] if objects == 0 => folder.clone_from(only),
            _ => {
                let step = folders.len().div_ceil(MOST_RANGES).max(1);
                return Ok(folders.into_iter().step_by(step).collect());
            }
        }
    }
    Ok(Vec::new())
}

fn between(cuts: &[String]) -> Vec<Range> {
    // The first folder needs no cut before it: what lies there is little.
    let cuts = cuts.get(1..).unwrap_or_default();
    let starts = std::iter::once(String::new()).chain(cuts.iter().cloned());
    let ends = cuts.iter().cloned().map(Some).chain(std::iter::once(None));
    let range = |(no, (after, up_to)): (u64, (String, Option<String>))| Range {
        no,
        position: after.clone(),
        after,
        up_to,
        ..Range::default()
    };
    (0..).zip(starts.zip(ends)).map(range).collect()
}

fn read(row: &Row) -> Result<Range, StoreError> {
    let figures: String = row.get("figures")?;
    Ok(Range {
        no: row.number("no")?,
        source: row.get("source")?,
        after: row.get("start_after")?,
        up_to: row.get("up_to")?,
        position: row.get("position")?,
        done: row.get("done")?,
        figures: serde_json::from_str(&figures).map_err(StoreError::corrupt("figures of an index"))?,
    })
}

impl LedgerReader {
    /// The ranges of the current or last listing.
    pub(crate) async fn index_ranges(&self, id: IndexId) -> Result<Vec<Range>, StoreError> {
        let text = "select no, source, start_after, up_to, position, done, figures from ledger_index_ranges \
                    where index_id = $1 order by no";
        let rows = query("read an index's ranges", text).bind(id.to_string()).all(&self.reads).await?;
        rows.iter().map(read).collect()
    }
}

impl Ledger {
    /// Begins a listing: these ranges in place of the last one's.
    pub(super) async fn begin_listing(&self, id: IndexId, ranges: &[Range]) -> Result<(), StoreError> {
        const WHAT: &str = "begin a listing";
        let rows: Vec<_> = ranges
            .iter()
            .map(|range| {
                serde_json::json!({ "no": range.no, "source": range.source, "after": range.after, "up_to": range.up_to })
            })
            .collect();
        let mut transaction = self.writes.begin(WHAT).await?;
        query(WHAT, "delete from ledger_index_ranges where index_id = $1")
            .bind(id.to_string())
            .execute(&mut transaction)
            .await?;
        query(
            WHAT,
            "insert into ledger_index_ranges (index_id, no, source, start_after, up_to, position) \
             select $2, cast(e.value ->> 'no' as bigint), e.value ->> 'source', e.value ->> 'after', \
             e.value ->> 'up_to', e.value ->> 'after' from {rows_1}",
        )
        .bind(Value::json(WHAT, &rows)?)
        .bind(id.to_string())
        .execute(&mut transaction)
        .await?;
        query(
            WHAT,
            "update ledger_indexes set run = run + 1, listing = true, wanted = false, started_at = {now}, ended_at = null, \
             error = null where id = $1",
        )
        .bind(id.to_string())
        .execute(&mut transaction)
        .await?;
        transaction.commit(WHAT).await
    }

    /// Ends a listing all of whose ranges are done.
    pub(super) async fn end_listing(&self, id: IndexId) -> Result<(), StoreError> {
        let text = "update ledger_indexes set listing = false, ended_at = {now} where id = $1";
        query("end a listing", text).bind(id.to_string()).execute(&self.writes).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_key_once() {
        assert_eq!(between(&[]), [Range::default()]);
        let cuts = ["p/a/", "p/b/", "p/c/"].map(str::to_owned);
        let ranges = between(&cuts);
        let bounds: Vec<_> =
            ranges.iter().map(|range| (range.after.as_str(), range.up_to.as_deref())).collect();
        assert_eq!(bounds, [("", Some("p/b/")), ("p/b/", Some("p/c/")), ("p/c/", None)]);
        for key in ["p/", "p/a/1", "p/a0", "p/b/", "p/b/1", "p/b0", "p/c/z", "p/z"] {
            let holding = ranges.iter().filter(|range| {
                key > range.after.as_str() && range.up_to.as_deref().is_none_or(|up_to| key <= up_to)
            });
            assert_eq!(holding.count(), 1, "{key}");
        }
    }
}
