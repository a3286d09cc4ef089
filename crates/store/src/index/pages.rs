//! Objects of a folder, page by page, wherever it lies.

use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use object_store::{ObjectMeta, ObjectStore as _, path::Path};

use super::{IndexSpec, inventory, ranges::Range};
use crate::{
    Locations, ObjectLocation, StoreError,
    location::{self, S3Bucket},
};

/// Objects per page where we cut the pages.
pub(super) const PAGE: usize = 1000;

/// What a listing says of one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) key: String,
    /// Without quotes; made from time and size where the store gives none.
    pub(super) etag: String,
    pub(super) bytes: u64,
    pub(super) modified_ms: i64,
    pub(super) storage_class: Option<String>,
    /// Of an archived object: `true` if it can be read now, `false` if it is on its way.
    pub(super) restored: Option<bool>,
}

impl Seen {
    /// Its ETag as it is compared: listings write quotes around it, inventories do not.
    pub(super) fn etag_of(etag: Option<&str>, modified_ms: i64, bytes: u64) -> String {
        match etag.map(|etag| etag.trim_matches('"')).filter(|etag| !etag.is_empty()) {
            Some(etag) => etag.to_owned(),
            None => format!("{modified_ms}-{bytes}"),
        }
    }
}

/// Some objects, and how far the range is done with them.
#[derive(Debug, Default)]
pub(super) struct SeenPage {
    pub(super) objects: Vec<Seen>,
    pub(super) position: String,
    pub(super) done: bool,
}

/// Where an index looks.
#[derive(Clone)]
pub(super) enum Source {
    S3 {
        bucket: S3Bucket,
        folder: String,
    },
    /// In the order of the keys (GCS, Azure), or in none (a local folder).
    Store {
        location: ObjectLocation,
        ordered: bool,
    },
    Inventory {
        folder: String,
    },
}

impl Source {
    pub(super) fn of(locations: &Locations, spec: &IndexSpec) -> Result<Self, StoreError> {
        let folder = location::folder_key(&spec.prefix)?;
        if spec.inventory.is_some() {
            return Ok(Self::Inventory { folder });
        }
        if let Some((bucket, _)) = locations.s3_folder(&spec.prefix)? {
            return Ok(Self::S3 { bucket, folder });
        }
        let ordered = location::local_path(&spec.prefix)?.is_none();
        Ok(Self::Store { location: locations.resolve_folder(&spec.prefix)?, ordered })
    }

    /// What is left of a range.
    pub(super) fn pages<'a>(
        &self,
        locations: &'a Locations,
        range: &Range,
    ) -> BoxStream<'a, Result<SeenPage, StoreError>> {
        match self {
            Self::S3 { bucket, folder } => s3_pages(bucket.clone(), folder.clone(), range).boxed(),
            Self::Store { location, ordered } => store_pages(location, *ordered, range).boxed(),
            Self::Inventory { folder } => inventory::pages(locations, folder.clone(), range).boxed(),
        }
    }
}

fn s3_pages(
    bucket: S3Bucket,
    folder: String,
    range: &Range,
) -> impl Stream<Item = Result<SeenPage, StoreError>> + use<> {
    let up_to = range.up_to.clone();
    stream::try_unfold(Some(range.position.clone()), move |position| {
        let (bucket, folder, up_to) = (bucket.clone(), folder.clone(), up_to.clone());
        async move {
            let Some(position) = position else { return Ok(None) };
            let failed = |cause| StoreError::Object { key: folder.clone(), cause };
            let listed = bucket.page(&folder, &position, false).await.map_err(failed)?;
            let last = listed.objects.last().map_or(position, |object| object.key.clone());
            let beyond = |key: &str| up_to.as_deref().is_some_and(|up_to| key > up_to);
            let done = !listed.more || beyond(&last);
            let within = listed.objects.into_iter().filter(|object| !beyond(&object.key));
            let objects = within
                .map(|object| Seen {
                    etag: Seen::etag_of(object.etag.as_deref(), object.modified_ms, object.bytes),
                    key: object.key,
                    bytes: object.bytes,
                    modified_ms: object.modified_ms,
                    storage_class: object.storage_class,
                    restored: object.restored,
                })
                .collect();
            let next = (!done).then(|| last.clone());
            Ok(Some((SeenPage { objects, position: last, done }, next)))
        }
    })
}

/// Without an order there is no position: an interrupted listing of a local folder begins again, and finds in the
/// catalogue what is done.
fn store_pages(
    location: &ObjectLocation,
    ordered: bool,
    range: &Range,
) -> impl Stream<Item = Result<SeenPage, StoreError>> + use<> {
    let folder = (!location.path.as_ref().is_empty()).then_some(&location.path);
    let listed = match Path::parse(&range.position) {
        Ok(offset) if ordered && !range.position.is_empty() => {
            location.store.list_with_offset(folder, &offset)
        }
        _ => location.store.list(folder),
    };
    let what = location.uri.redacted();
    let pages = listed.chunks(PAGE).map(move |chunk| {
        let metas = chunk.into_iter().collect::<Result<Vec<_>, _>>().map_err(StoreError::object(&what))?;
        let last = metas.last().map(|meta| meta.location.to_string()).filter(|_| ordered);
        let objects = metas.into_iter().map(seen).collect();
        Ok(SeenPage { objects, position: last.unwrap_or_default(), done: false })
    });
    let end = SeenPage { position: range.position.clone(), done: true, ..SeenPage::default() };
    pages.chain(stream::iter([Ok(end)]))
}

fn seen(meta: ObjectMeta) -> Seen {
    let modified_ms = meta.last_modified.timestamp_millis();
    Seen {
        etag: Seen::etag_of(meta.e_tag.as_deref(), modified_ms, meta.size),
        key: meta.location.to_string(),
        bytes: meta.size,
        modified_ms,
        storage_class: None,
        restored: None,
    }
}
