//! Manifests of batches: objects with lines that a server reads in the background. Whoever reads one holds it for a time
//! and says so again meanwhile; when its process dies the hold lapses, and the next one to ask reads it from its start.
//! That does no harm: a line that is a job already finds its job there.
//!
//! A batch is sealed only when none of its manifests is left, in one transaction with the end of the last one.
//!
//! Jobs of a manifest are submitted in a transaction that locks its row: whoever has dropped the row can rely on it that
//! no further job comes of it.

use std::time::Duration;

use super::{Batch, Ledger, NewJob, Submission, batch, submit};
use crate::{
    StoreError,
    db::{Row, Transaction, query},
};

/// A manifest that is held by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchManifest {
    /// Names it.
    pub id: i64,
    /// Whose.
    pub tenant: String,
    /// The batch that its lines belong to.
    pub batch: String,
    /// Where the lines lie.
    pub uri: String,
    /// What lines have that do not say otherwise, as JSON; the ledger does not look into it.
    pub defaults: String,
    /// Readings that have begun, this one included.
    pub tries: u32,
    /// What stopped the last one, if it could tell.
    pub error: Option<String>,
    /// Who holds it.
    pub holder: String,
}

impl BatchManifest {
    /// True where a reading has begun before this one, which may have left jobs.
    pub fn was_begun(&self) -> bool {
        self.tries > 1 || self.error.is_some()
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get("seq")?,
            tenant: row.get("tenant")?,
            batch: row.get("batch")?,
            uri: row.get("uri")?,
            defaults: row.get("defaults")?,
            tries: row.number("tries")?,
            error: row.get("error")?,
            holder: row.get("holder")?,
        })
    }
}

/// Results are to be written again, and the webhook called again.
const TELL_AGAIN: &str = ", exported_at = null, told_at = null, tries = 0, error = null";

/// What stands among the bad lines of a batch that was cancelled while its lines were read, under the number 0.
const CANCELLED: &str = "the batch was cancelled before all lines of its manifest were read";

/// The end of an upload to a batch.
#[derive(Clone, Copy, Debug)]
pub struct Sealing<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// The batch, which was put down.
    pub batch: &'a str,
    /// Lines that became no job.
    pub bad_lines: u64,
    /// True where there are new jobs: the batch's results are to be written again, and its webhook called again.
    pub new_jobs: bool,
    /// The manifest that is done with it, if the lines lay in one.
    pub manifest: Option<&'a BatchManifest>,
}

impl Ledger {
    /// Puts a batch down as [`Self::put_batch`], and with it an object whose lines belong to it.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`]: then neither is there.
    pub async fn put_manifest(&self, batch: &Batch, uri: &str, defaults: &str) -> Result<(), StoreError> {
        const WHAT: &str = "put a manifest down";
        let mut transaction = self.writes.begin(WHAT).await?;
        batch::put(batch).execute(&mut transaction).await?;
        query(
            WHAT,
            "insert into ledger_manifests (tenant, batch, uri, defaults, held_until, created_at) \
             values ($1, $2, $3, $4, {now}, {now})",
        )
        .bind(&batch.tenant)
        .bind(&batch.name)
        .bind(uri)
        .bind(defaults)
        .execute(&mut transaction)
        .await?;
        transaction.commit(WHAT).await
    }

    /// The manifest that has waited longest among those that nobody reads; it belongs to `holder` for `time`.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`], [`StoreError::Database`].
    pub async fn take_manifest(
        &self,
        holder: &str,
        time: Duration,
    ) -> Result<Option<BatchManifest>, StoreError> {
        let row = query(
            "take a manifest",
            "update ledger_manifests set holder = $1, held_until = {now} + $2, tries = tries + 1 where seq = ( \
             select seq from ledger_manifests where held_until <= {now} order by held_until, seq limit 1 {skip_locked}) \
             returning seq, tenant, batch, uri, defaults, tries, error, holder",
        )
        .bind(holder)
        .bind(time.as_millis() as i64)
        .optional(&self.writes)
        .await?;
        row.as_ref().map(BatchManifest::read).transpose()
    }

    /// Keeps hold of a manifest; false where another process has it, or it is done.
    ///
    /// # Errors
    /// As [`Self::take_manifest`].
    pub async fn hold_manifest(&self, manifest: &BatchManifest, time: Duration) -> Result<bool, StoreError> {
        let held = query(
            "hold a manifest",
            "update ledger_manifests set held_until = {now} + $3 where seq = $1 and holder = $2",
        )
        .bind(manifest.id)
        .bind(&manifest.holder)
        .bind(time.as_millis() as i64)
        .execute(&self.writes)
        .await?;
        Ok(held > 0)
    }

    /// Submits `jobs`, which stand in `manifest`, as [`Self::submit_jobs`]. `None`, and nothing is submitted, where another
    /// process has the manifest, or it is done or dropped.
    ///
    /// # Errors
    /// As [`Self::submit_jobs`].
    pub async fn submit_listed(
        &self,
        manifest: &BatchManifest,
        jobs: &[NewJob],
    ) -> Result<Option<Vec<Submission>>, StoreError> {
        let mut transaction = self.writes.begin(submit::WHAT).await?;
        let held =
            query(submit::WHAT, "select seq from ledger_manifests where seq = $1 and holder = $2 {lock}")
                .bind(manifest.id)
                .bind(&manifest.holder)
                .optional(&mut transaction)
                .await?;
        if held.is_none() {
            return Ok(None);
        }
        let submissions =
            self.submit_within(&mut transaction, &manifest.tenant, &manifest.batch, jobs).await?;
        transaction.commit(submit::WHAT).await?;
        Ok(Some(submissions))
    }

    /// Drops what is still to be read for a batch, and seals it; its bad lines say so.
    pub(super) async fn drop_manifests(&self, tenant: &str, batch: &str) -> Result<(), StoreError> {
        const WHAT: &str = "drop the manifests of a batch";
        let mut transaction = self.writes.begin(WHAT).await?;
        lock_batch(WHAT, tenant, batch, &mut transaction).await?;
        let dropped = query(WHAT, "delete from ledger_manifests where tenant = $1 and batch = $2")
            .bind(tenant)
            .bind(batch)
            .execute(&mut transaction)
            .await?;
        if dropped == 0 {
            return Ok(());
        }
        query(
            WHAT,
            "insert into ledger_bad_lines (tenant, batch, line, error) values ($1, $2, 0, $3) \
             on conflict (tenant, batch, line) do nothing",
        )
        .bind(tenant)
        .bind(batch)
        .bind(CANCELLED)
        .execute(&mut transaction)
        .await?;
        query(
            WHAT,
            format!(
                "update ledger_batches set sealed = true, next_at = {{now}}{TELL_AGAIN}, bad_lines = \
                 (select count(*) from ledger_bad_lines l where l.tenant = $1 and l.batch = $2) \
                 where tenant = $1 and name = $2"
            ),
        )
        .bind(tenant)
        .bind(batch)
        .execute(&mut transaction)
        .await?;
        transaction.commit(WHAT).await
    }

    /// Lets go of a manifest that could not be read, and why: it comes again after a while.
    ///
    /// # Errors
    /// As [`Self::take_manifest`].
    pub async fn put_manifest_off(
        &self,
        manifest: &BatchManifest,
        error: &str,
        after: Duration,
    ) -> Result<(), StoreError> {
        query(
            "put a manifest off",
            "update ledger_manifests set holder = null, held_until = {now} + $3, error = $4 \
             where seq = $1 and holder = $2",
        )
        .bind(manifest.id)
        .bind(&manifest.holder)
        .bind(after.as_millis() as i64)
        .bind(error)
        .execute(&self.writes)
        .await
        .map(drop)
    }

    /// Lets go of a manifest because its reader stops: another may take it at once, and it counts as no reading.
    ///
    /// # Errors
    /// As [`Self::take_manifest`].
    pub async fn let_manifest_go(&self, manifest: &BatchManifest) -> Result<(), StoreError> {
        query(
            "let go of a manifest",
            "update ledger_manifests set holder = null, held_until = {now}, tries = tries - 1, \
             error = 'its server stopped' where seq = $1 and holder = $2",
        )
        .bind(manifest.id)
        .bind(&manifest.holder)
        .execute(&self.writes)
        .await
        .map(drop)
    }

    /// Ends an upload, and seals the batch unless a manifest of it is still to be read. False, and nothing is changed,
    /// where the upload's manifest belongs to another process by now.
    ///
    /// # Errors
    /// As [`Self::take_manifest`].
    pub async fn seal_batch(&self, sealing: &Sealing<'_>) -> Result<bool, StoreError> {
        const WHAT: &str = "seal a batch";
        let mut transaction = self.writes.begin(WHAT).await?;
        lock_batch(WHAT, sealing.tenant, sealing.batch, &mut transaction).await?;
        if let Some(manifest) = sealing.manifest {
            let done = query(WHAT, "delete from ledger_manifests where seq = $1 and holder = $2")
                .bind(manifest.id)
                .bind(&manifest.holder)
                .execute(&mut transaction)
                .await?;
            if done == 0 {
                return Ok(false);
            }
        }
        let again = match sealing.new_jobs {
            true => TELL_AGAIN,
            false => "",
        };
        query(
            WHAT,
            format!(
                "update ledger_batches set bad_lines = $3, next_at = {{now}}, sealed = not exists ( \
                 select 1 from ledger_manifests m where m.tenant = $1 and m.batch = $2){again} \
                 where tenant = $1 and name = $2"
            ),
        )
        .bind(sealing.tenant)
        .bind(sealing.batch)
        .bind(sealing.bad_lines)
        .execute(&mut transaction)
        .await?;
        transaction.commit(WHAT).await?;
        Ok(true)
    }
}

/// Two uploads that end together must not each take the other for unfinished: the second one waits here, and the
/// statements after it see what the first one has done.
async fn lock_batch(
    what: &'static str,
    tenant: &str,
    batch: &str,
    transaction: &mut Transaction,
) -> Result<(), StoreError> {
    query(what, "select seq from ledger_batches where tenant = $1 and name = $2 {lock}")
        .bind(tenant)
        .bind(batch)
        .all(transaction)
        .await
        .map(drop)
}
