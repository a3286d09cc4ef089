//! What a listing would do. Nothing is written, nothing is restored.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    IndexFigures, IndexId, IndexSpec, ListingOptions,
    decide::{self, Fate},
    listing::wants,
    pages::Source,
    ranges::{self, Range},
};
use crate::{LedgerReader, Locations, StoreError, location};

/// What a listing would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DryRun {
    /// What it would come to. `restoring` counts what it would restore and what is on its way.
    pub figures: IndexFigures,
    /// Bytes of the objects that are new or changed.
    pub bytes_to_ask: u64,
}

/// Lists the objects of `spec`; those in the catalogue of `known` count as known.
///
/// # Errors
/// [`StoreError::Location`], [`StoreError::Object`], [`StoreError::Database`].
pub async fn dry_run(
    ledger: Option<&LedgerReader>,
    locations: &Locations,
    spec: &IndexSpec,
    known: Option<IndexId>,
    options: &ListingOptions,
) -> Result<DryRun, StoreError> {
    spec.check(locations)?;
    let looker = Looker {
        source: Source::of(locations, spec)?,
        folder: location::folder_key(&spec.prefix)?,
        catalogue: ledger.zip(known),
        spec,
        locations,
    };
    let ranges = ranges::plan(locations, spec).await?;
    stream::iter(ranges)
        .map(|range| looker.range(range))
        .buffer_unordered(options.at_once.max(1))
        .try_fold(DryRun::default(), async |mut sum, part| {
            sum.figures += part.figures;
            sum.bytes_to_ask += part.bytes_to_ask;
            Ok(sum)
        })
        .await
}

struct Looker<'a> {
    spec: &'a IndexSpec,
    source: Source,
    folder: String,
    catalogue: Option<(&'a LedgerReader, IndexId)>,
    locations: &'a Locations,
}

impl Looker<'_> {
    async fn range(&self, range: Range) -> Result<DryRun, StoreError> {
        let names = self.spec.names()?;
        let mut sum = DryRun::default();
        let mut pages = self.source.pages(self.locations, &range);
        while let Some(page) = pages.next().await {
            let page = page?;
            sum.figures.listed += page.objects.len() as u64;
            let mine: Vec<_> = page.objects.iter().filter(|seen| wants(&names, &self.folder, seen)).collect();
            let keys: Vec<&str> = mine.iter().map(|seen| seen.key.as_str()).collect();
            let known = match self.catalogue {
                Some((ledger, id)) => ledger.known_objects(id, &keys).await?,
                None => Default::default(),
            };
            for seen in mine {
                sum.figures.objects += 1;
                sum.figures.bytes += seen.bytes;
                let fate = match location::object_in(&self.spec.prefix, &seen.key) {
                    Ok(_) => decide::fate(seen, known.get(&seen.key), self.spec.restore_days.is_some()),
                    Err(error) => Fate::Skip(error.to_string()),
                };
                match fate {
                    Fate::Known => continue,
                    Fate::Enqueue { changed: true } => sum.figures.changed += 1,
                    Fate::Enqueue { changed: false } => sum.figures.new += 1,
                    Fate::Restore | Fate::AskWhetherRestored | Fate::Restoring => {
                        sum.figures.restoring += 1;
                        continue;
                    }
                    Fate::Skip(_) => {
                        sum.figures.skipped += 1;
                        continue;
                    }
                }
                sum.figures.jobs += self.spec.questions.len() as u64;
                sum.bytes_to_ask += seen.bytes;
            }
        }
        Ok(sum)
    }
}
