//! What is known of a video after first contact: probe and keyframe index, per version of the object.

use spectemp_types::{VideoId, VideoUri};

use super::{Ledger, LedgerReader};
use crate::{
    StoreError,
    db::{Value, query},
};

/// One version of one video.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoRow {
    /// URI without query and user info.
    pub uri: String,
    /// The object's ETag or version, where the store gives one.
    pub etag: Option<String>,
    /// The object's size.
    pub bytes: u64,
    /// Length in seconds, where known.
    pub duration_s: Option<f64>,
    /// What `spectemp probe --json` prints.
    pub probe: serde_json::Value,
    /// The video crate's record, to be handed back at the next open.
    pub record: Vec<u8>,
}

impl Ledger {
    /// Keeps `video`, in place of what was known of the same version.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Database`].
    pub async fn put_video(&self, video: &VideoRow) -> Result<VideoId, StoreError> {
        let row = query(
            "keep a video's index",
            "insert into ledger_videos (id, uri, etag, bytes, duration_s, probe, record, touched_at) \
             values ($1, $2, $3, $4, $5, $6, $7, {now}) \
             on conflict (uri, etag) do update set bytes = excluded.bytes, duration_s = excluded.duration_s, \
             probe = excluded.probe, record = excluded.record, touched_at = excluded.touched_at returning id",
        )
        .bind(VideoId::new())
        .bind(&video.uri)
        .bind(video.etag.as_deref().unwrap_or(""))
        .bind(video.bytes)
        .bind(video.duration_s)
        .bind(Value::jsonb("probe", &video.probe)?)
        .bind(&video.record)
        .one(&self.writes)
        .await?;
        row.id("id")
    }

    /// Drops what is known of videos that were not opened for `older_ms` and that no waiting job needs; rows dropped.
    pub(crate) async fn forget_videos(&self, older_ms: i64) -> Result<u64, StoreError> {
        query(
            "forget old videos",
            "delete from ledger_videos where touched_at < {now} - $1 and not exists (select 1 from ledger_jobs j \
             where j.video_uri = ledger_videos.uri and j.status in ('queued', 'running'))",
        )
        .bind(older_ms)
        .execute(&self.writes)
        .await
    }
}

impl LedgerReader {
    /// What is known of the version of `uri` that was seen last. The object may have changed since: compare the ETag.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn video(&self, uri: &VideoUri) -> Result<Option<VideoRow>, StoreError> {
        let row = query(
            "look up a video",
            "select uri, etag, bytes, duration_s, probe, record from ledger_videos where uri = $1 order by touched_at desc limit 1",
        )
        .bind(uri.redacted())
        .optional(&self.reads)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let etag: String = row.get("etag")?;
        Ok(Some(VideoRow {
            uri: row.get("uri")?,
            etag: (!etag.is_empty()).then_some(etag),
            bytes: row.number("bytes")?,
            duration_s: row.get("duration_s")?,
            probe: row.json("probe", uri)?,
            record: row.get("record")?,
        }))
    }
}
