//! Opening clips and asking for frames.

use std::{future::Future, sync::Arc, time::Duration};

use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use spectemp_engine::{Frame, FrameBatch, FrameError, FrameMode, FrameRequest, FrameSource};
use spectemp_types::{Scaler, VideoUri};
use spectemp_video::{OpenOptions, Video, VideoError, VideoObject};
use tokio_util::sync::CancellationToken;

/// Nothing in these tests may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test's future; one that hangs fails.
pub(crate) fn within<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
    runtime.shutdown_background(); // a thread that hangs must not hold up the message
    result.unwrap_or_else(|_| panic!("still not done after {PATIENCE:?}"))
}

/// Bytes as an object in memory.
pub(crate) async fn object(name: &str, bytes: Vec<u8>) -> VideoObject {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from(name);
    store.put(&path, bytes.into()).await.unwrap();
    VideoObject { store, path, uri: VideoUri::parse(&format!("s3://bucket/{name}")).unwrap() }
}

/// Opens bytes with the default options.
pub(crate) async fn open(name: &str, bytes: Vec<u8>) -> Result<Video, VideoError> {
    Video::open(object(name, bytes).await, OpenOptions::default(), None).await
}

/// A request at the displayed size.
pub(crate) fn request(times_s: &[f64], mode: FrameMode) -> FrameRequest {
    FrameRequest {
        times_s: times_s.to_vec(),
        mode,
        sizes: Vec::new(),
        scaler: Scaler::Pillow,
        cancel: CancellationToken::new(),
    }
}

/// Exact frames.
pub(crate) async fn exact(video: &Video, times_s: &[f64]) -> Result<FrameBatch, FrameError> {
    let batch = video.frames(request(times_s, FrameMode::Exact)).await?;
    let asked: Vec<_> = batch.frames.iter().map(|frame| frame.requested_s).collect();
    assert_eq!(asked, times_s, "frames come in the order asked for");
    Ok(batch)
}

/// One exact frame.
pub(crate) async fn one(video: &Video, time_s: f64) -> Frame {
    exact(video, &[time_s]).await.unwrap().frames.remove(0)
}
