//! One listing of an index, see the module above.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use spectemp_types::VideoUri;

use super::{
    Index, IndexFigures, IndexId,
    catalogue::{Entry, State},
    decide::{self, Fate},
    pages::{Seen, SeenPage, Source},
    ranges::{self, Range},
    spec::Names,
};
use crate::{
    Batch, Ledger, Locations, NewJob, StoreError, Submission,
    location::{self, Restore},
};

/// Restores and questions about them that are on their way at once, per range.
const RESTORES_AT_ONCE: usize = 8;
/// Jobs per submission.
const JOBS_AT_ONCE: usize = 1000;

/// How to list.
#[derive(Clone, Copy, Debug)]
pub struct ListingOptions {
    /// Ranges that are listed at once.
    pub at_once: usize,
    /// The index stays with this process for so long after each page; then another one may go on.
    pub hold: Duration,
}

impl Default for ListingOptions {
    fn default() -> Self {
        Self { at_once: 4, hold: Duration::from_secs(300) }
    }
}

/// How a listing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// All ranges are done.
    Done(IndexFigures),
    /// Another process lists this index just now, or it is paused.
    Held,
}

/// Lists an index: begins, or goes on where the last try stopped. `told` is given the figures of each page when its
/// jobs are in the ledger, so that the caller can wake workers and show progress. Dropping the future is safe at any
/// point.
///
/// # Errors
/// [`StoreError::NoIndex`], [`StoreError::Location`], [`StoreError::Object`], [`StoreError::Database`]: what was done
/// stays done, and the index remembers the text.
pub async fn listing(
    ledger: &Ledger,
    locations: &Locations,
    id: IndexId,
    options: &ListingOptions,
    told: &(dyn Fn(&IndexFigures) + Send + Sync),
) -> Result<Listed, StoreError> {
    let holder = IndexId::new().to_string();
    if !ledger.hold_index(id, &holder, options.hold).await? {
        return ledger.index_by_id(id).await.map(|_| Listed::Held);
    }
    let listed = list((ledger, locations), id, options, &holder, told).await;
    let error = listed.as_ref().err().map(ToString::to_string);
    ledger.let_index_go(id, &holder, error.as_deref()).await?;
    listed
}

async fn list(
    (ledger, locations): (&Ledger, &Locations),
    id: IndexId,
    options: &ListingOptions,
    holder: &str,
    told: &(dyn Fn(&IndexFigures) + Send + Sync),
) -> Result<Listed, StoreError> {
    let index = ledger.index_by_id(id).await?;
    index.spec.check(locations)?;
    if !index.listing {
        ledger.begin_listing(id, &ranges::plan(locations, &index.spec).await?).await?;
    }
    let lister = Lister {
        source: Source::of(locations, &index.spec)?,
        folder: location::folder_key(&index.spec.prefix)?,
        names: index.spec.names()?,
        index,
        ledger,
        locations,
        holder,
        hold: options.hold,
        told,
    };
    let ranges = ledger.index_ranges(id).await?;
    let ended: Vec<bool> = stream::iter(ranges.into_iter().filter(|range| !range.done))
        .map(|range| lister.range(range))
        .buffer_unordered(options.at_once.max(1))
        .try_collect()
        .await?;
    if ended.contains(&false) {
        return Ok(Listed::Held);
    }
    ledger.end_listing(id).await?;
    let figures = ledger.index_by_id(id).await?.figures;
    if figures.jobs > 0 {
        lister.reopen_batch().await?;
    }
    Ok(Listed::Done(figures))
}

struct Lister<'a> {
    index: Index,
    source: Source,
    folder: String,
    names: Names,
    ledger: &'a Ledger,
    locations: &'a Locations,
    holder: &'a str,
    hold: Duration,
    told: &'a (dyn Fn(&IndexFigures) + Send + Sync),
}

/// An object to be enqueued or written down.
struct Wanted<'a> {
    seen: &'a Seen,
    video: Option<VideoUri>,
    fate: Fate,
    versions: u64,
}

impl Lister<'_> {
    /// Lists what is left of a range; false where the index is no longer ours.
    async fn range(&self, mut range: Range) -> Result<bool, StoreError> {
        let mut pages = self.source.pages(self.locations, &range);
        while let Some(page) = pages.next().await {
            if !self.ledger.hold_index(self.index.id, self.holder, self.hold).await? {
                return Ok(false);
            }
            self.page(page?, &mut range).await?;
        }
        Ok(true)
    }

    async fn page(&self, page: SeenPage, range: &mut Range) -> Result<(), StoreError> {
        let mut figures = IndexFigures { listed: page.objects.len() as u64, ..IndexFigures::default() };
        let wanted = self.wanted(&page.objects).await?;
        figures.objects = wanted.len() as u64;
        figures.bytes = wanted.iter().map(|wanted| wanted.seen.bytes).sum();
        let settled: Vec<Wanted<'_>> =
            stream::iter(wanted).map(|wanted| self.settle(wanted)).buffered(RESTORES_AT_ONCE).collect().await;
        self.submit(&settled, &mut figures).await?;
        let entries: Vec<Entry<'_>> =
            settled.iter().filter_map(|wanted| entry(wanted, &mut figures)).collect();
        range.figures += figures;
        range.position = page.position;
        range.done = page.done;
        self.ledger.write_page(self.index.id, &entries, range).await?;
        (self.told)(&figures);
        Ok(())
    }

    /// The objects whose names belong to the index, and what is to be done about them.
    async fn wanted<'p>(&self, objects: &'p [Seen]) -> Result<Vec<Wanted<'p>>, StoreError> {
        let mine: Vec<&Seen> = objects.iter().filter(|seen| wants(&self.names, &self.folder, seen)).collect();
        let keys: Vec<&str> = mine.iter().map(|seen| seen.key.as_str()).collect();
        let known = self.ledger.known_objects(self.index.id, &keys).await?;
        let may_restore = self.index.spec.restore_days.is_some();
        let wanted = |seen: &'p Seen| {
            let known = known.get(&seen.key);
            let (video, fate) = match location::object_in(&self.index.spec.prefix, &seen.key) {
                Ok(video) => (Some(video), decide::fate(seen, known, may_restore)),
                Err(error) => (None, Fate::Skip(error.to_string())),
            };
            Wanted { seen, video, fate, versions: known.map_or(0, |known| known.versions) }
        };
        Ok(mine.into_iter().map(wanted).collect())
    }

    /// Asks S3 for restores, and how they go.
    async fn settle<'p>(&self, mut wanted: Wanted<'p>) -> Wanted<'p> {
        if !matches!(wanted.fate, Fate::Restore | Fate::AskWhetherRestored) {
            return wanted;
        }
        let enqueue = Fate::Enqueue { changed: wanted.versions > 0 };
        let bucket = match self.locations.s3_folder(&self.index.spec.prefix) {
            Ok(Some((bucket, _))) => bucket,
            _ => return wanted,
        };
        let key = &wanted.seen.key;
        wanted.fate = if wanted.fate == Fate::AskWhetherRestored {
            match bucket.is_restored(key).await {
                Ok(true) => enqueue,
                Ok(false) => Fate::Restoring,
                Err(cause) => Fate::Skip(format!("whether it is restored cannot be told: {cause}")),
            }
        } else {
            let days = self.index.spec.restore_days.unwrap_or(1);
            match bucket.restore(key, days, self.index.spec.restore_tier.of_s3()).await {
                Ok(Restore::Begun) => Fate::Restoring,
                Ok(Restore::NotNeeded) => enqueue,
                Err(cause) => Fate::Skip(format!("it cannot be restored: {cause}")),
            }
        };
        wanted
    }

    async fn submit(&self, wanted: &[Wanted<'_>], figures: &mut IndexFigures) -> Result<(), StoreError> {
        let mut jobs = Vec::new();
        for wanted in wanted.iter().filter(|wanted| matches!(wanted.fate, Fate::Enqueue { .. })) {
            let Some(video) = &wanted.video else { continue };
            let name = wanted.seen.key.strip_prefix(&self.folder).unwrap_or(&wanted.seen.key);
            for question in &self.index.spec.questions {
                let spec = decide::job(question, video, name, wanted.seen);
                jobs.push(NewJob { spec, priority: question.priority, deadline_ms: None });
            }
        }
        for jobs in jobs.chunks(JOBS_AT_ONCE) {
            let submitted = self.ledger.submit_jobs(&self.index.tenant, &self.index.batch, jobs).await?;
            for submission in submitted {
                match submission {
                    Submission::Conflict(conflict) => {
                        tracing::warn!(index.name = self.index.name, error = %conflict, "a job of an index exists with other content");
                        figures.conflicts += 1;
                    }
                    // Those that exist are of a page that was submitted and not written down.
                    Submission::New(_) | Submission::Existing { .. } => figures.jobs += 1,
                }
            }
        }
        Ok(())
    }

    /// The batch has new jobs: its results are to be written again when they end.
    async fn reopen_batch(&self) -> Result<(), StoreError> {
        let (tenant, name) = (&self.index.tenant, &self.index.batch);
        let batch = match self.ledger.batch(tenant, name).await? {
            Some(batch) => batch,
            None => Batch { tenant: tenant.clone(), name: name.clone(), ..Batch::default() },
        };
        let results = self.index.spec.results.as_ref().map(VideoUri::redacted);
        self.ledger.put_batch(&Batch { sealed: true, results, exported_ms: None, ..batch }).await
    }
}

/// True for an object, not a folder's marker, whose name relative to the folder belongs to the index.
pub(super) fn wants(names: &Names, folder: &str, seen: &Seen) -> bool {
    let name = seen.key.strip_prefix(folder).unwrap_or(&seen.key);
    !name.is_empty() && !name.ends_with('/') && names.wants(name)
}

/// The row to write; none for what has not changed.
fn entry<'p>(wanted: &Wanted<'p>, figures: &mut IndexFigures) -> Option<Entry<'p>> {
    let (state, reason, versions) = match &wanted.fate {
        Fate::Known => return None,
        Fate::Enqueue { changed } => {
            *(if *changed { &mut figures.changed } else { &mut figures.new }) += 1;
            (State::Enqueued, None, wanted.versions + 1)
        }
        Fate::Restoring | Fate::Restore | Fate::AskWhetherRestored => {
            figures.restoring += 1;
            (State::Restoring, None, wanted.versions)
        }
        Fate::Skip(reason) => {
            figures.skipped += 1;
            (State::Skipped, Some(reason.clone()), wanted.versions)
        }
    };
    Some(Entry::new(wanted.seen, state, reason, versions))
}
