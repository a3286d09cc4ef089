//! The videos that are open: one per URI, shared by all jobs that run on it and closed with the last of them.
//!
//! What was learnt of a video lies in the ledger, is handed in when it is opened and handed back right after and when
//! it is closed (a partial index grows while frames are read).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use spectemp_engine::{FrameBatch, FrameError, FrameRequest, FrameSource, VideoFacts};
use spectemp_store::{Ledger, Locations, VideoRow};
use spectemp_types::{IoFigures, TraceVideo, VideoUri};
use spectemp_video::{OpenOptions, Video, VideoObject, VideoRecord};
use tokio::sync::OnceCell;

use crate::{error::JobError, runner::Options};

/// What it cost to open a video.
#[derive(Default)]
struct Opening {
    io: IoFigures,
    fetch_ms: f64,
}

/// An open video.
pub(crate) struct OpenVideo {
    video: Video,
    uri: VideoUri,
    /// The record as the ledger has it.
    kept: Mutex<Vec<u8>>,
    /// What opening cost, until the first request takes it on its account.
    opening: Mutex<Opening>,
    /// One request at a time: jobs on one video begin with the same frames, and the second one to ask finds them in
    /// the cache instead of reading them beside the first. (Within a request decoding is parallel.)
    gate: tokio::sync::Mutex<()>,
}

impl OpenVideo {
    /// The version of the object, as traces tell it.
    pub(crate) fn trace_video(&self) -> TraceVideo {
        let probe = self.video.probe();
        TraceVideo {
            uri: self.uri.redacted(),
            etag: probe.etag.clone(),
            bytes: probe.object_bytes,
            duration_s: probe.duration_s,
            width: probe.width,
            height: probe.height,
        }
    }
}

#[async_trait]
impl FrameSource for OpenVideo {
    fn facts(&self) -> VideoFacts {
        self.video.facts()
    }

    async fn frames(&self, request: FrameRequest) -> Result<FrameBatch, FrameError> {
        let _turn = self.gate.lock().await;
        let mut batch = self.video.frames(request).await?;
        let opening = std::mem::take(&mut *lock(&self.opening));
        batch.io += opening.io;
        batch.fetch_ms += opening.fetch_ms;
        Ok(batch)
    }
}

type Place = Arc<OnceCell<Arc<OpenVideo>>>;

/// All open videos of a run.
pub(crate) struct Shelf {
    ledger: Ledger,
    locations: Arc<Locations>,
    options: Options,
    // Keyed by the whole URI: what stands in a query may tell two videos apart.
    places: Mutex<HashMap<String, Place>>,
}

impl Shelf {
    pub(crate) fn new(ledger: Ledger, locations: Arc<Locations>, options: Options) -> Self {
        Self { ledger, locations, options, places: Mutex::default() }
    }

    /// The video at `uri`, opened now if it is not open yet. Jobs that ask at the same time share one opening.
    pub(crate) async fn open(&self, uri: &VideoUri) -> Result<Arc<OpenVideo>, JobError> {
        let place = self.places().entry(uri.expose().to_owned()).or_default().clone();
        place.get_or_try_init(|| self.open_new(uri)).await.cloned()
    }

    /// Lets the next [`Self::open`] begin anew: after a fault, or where the object has changed.
    pub(crate) fn forget(&self, uri: &VideoUri) {
        self.places().remove(uri.expose());
    }

    /// Closes all videos but those in `wanted`.
    pub(crate) async fn keep_only(&self, wanted: &HashSet<String>) -> Result<(), JobError> {
        let closed: Vec<Place> =
            self.places().extract_if(|uri, _| !wanted.contains(uri)).map(|(_, place)| place).collect();
        for video in closed.iter().filter_map(|place| place.get()) {
            self.keep_record(video).await?;
        }
        Ok(())
    }

    async fn open_new(&self, uri: &VideoUri) -> Result<Arc<OpenVideo>, JobError> {
        let location = self.locations.resolve(uri).map_err(|cause| JobError::Permanent(cause.to_string()))?;
        let object = VideoObject { store: location.store, path: location.path, uri: uri.clone() };
        let row = self.ledger.video(uri).await?;
        // A record that this program cannot read costs reading the index again, nothing else.
        let known: Option<VideoRecord> = row.and_then(|row| serde_json::from_slice(&row.record).ok());
        let started = Instant::now();
        let video = Video::open(object, self.open_options(uri), known).await?;
        let opening = Opening { io: video.io(), fetch_ms: started.elapsed().as_secs_f64() * 1000.0 };
        let open = OpenVideo {
            video,
            uri: uri.clone(),
            kept: Mutex::default(),
            opening: Mutex::new(opening),
            gate: Default::default(),
        };
        self.keep_record(&open).await?;
        Ok(Arc::new(open))
    }

    fn open_options(&self, uri: &VideoUri) -> OpenOptions {
        let mut open = self.options.open.clone();
        if let Some(blocks) = self.options.remote_blocks.as_ref().filter(|_| !uri.is_path()) {
            open.cache = blocks.clone();
        }
        open
    }

    /// Hands what is known of the video back to the ledger, where it is more than before.
    async fn keep_record(&self, open: &OpenVideo) -> Result<(), JobError> {
        let fail = |cause: serde_json::Error| JobError::Permanent(format!("{}: {cause}", open.uri));
        let record = serde_json::to_vec(&open.video.record()).map_err(fail)?;
        if *lock(&open.kept) == record {
            return Ok(());
        }
        let probe = open.video.probe();
        let row = VideoRow {
            uri: open.uri.redacted(),
            etag: probe.etag.clone(),
            bytes: probe.object_bytes,
            duration_s: Some(probe.duration_s),
            probe: serde_json::to_value(probe).map_err(fail)?,
            record: record.clone(),
        };
        self.ledger.put_video(&row).await?;
        *lock(&open.kept) = record;
        Ok(())
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        lock(&self.places)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
