//! The reader and the fetches behind it, over a store in memory.

use std::{
    collections::HashMap,
    io::{Read, Seek, SeekFrom},
    slice,
    sync::{Arc, Mutex},
};

use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use spectemp_types::VideoUri;
use tokio_util::sync::CancellationToken;

use crate::{
    BLOCK_BYTES, BlockCache, BlockTier, ObjectKey, OpenOptions, VideoError, VideoObject,
    meter::Call,
    open::blocking,
    reader::{Control, Patch, RangeReader},
    source::Source,
};

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

struct Opened {
    store: Arc<InMemory>,
    source: Arc<Source>,
    bytes: Vec<u8>,
}

async fn opened(length: usize) -> Opened {
    let (store, bytes) = (Arc::new(InMemory::new()), pattern(length));
    store.put(&Path::from("v.mp4"), bytes.clone().into()).await.unwrap();
    let object = VideoObject {
        store: Arc::clone(&store) as Arc<dyn ObjectStore>,
        path: Path::from("v.mp4"),
        uri: VideoUri::parse("https://host/v.mp4?signature=secret").unwrap(),
    };
    let call = Call::new(CancellationToken::new());
    let source = Source::open(object, &OpenOptions::default(), &call, BLOCK_BYTES).await.unwrap();
    Opened { store, source: Arc::new(source), bytes }
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    blocking("test".into(), move || Ok(work())).await.unwrap()
}

#[tokio::test]
async fn any_range_reads_as_the_object_is() {
    let Opened { source, bytes, .. } = opened(1_000_003).await;
    on_thread(move || {
        let control = Control::new(Arc::clone(&source), Call::new(CancellationToken::new()));
        let mut reader = RangeReader::new(control);
        for at in [0usize, 16_383, 500_000, 999_990, 3, 1_000_003] {
            reader.seek(SeekFrom::Start(at as u64)).unwrap();
            let mut read = Vec::new();
            reader.by_ref().take(40_000).read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes[at..(at + 40_000).min(bytes.len())]);
        }
        assert_eq!(reader.seek(SeekFrom::End(-3)).unwrap(), 1_000_000);
        assert!(reader.seek(SeekFrom::Current(-2_000_000)).is_err());
    })
    .await;
}

#[tokio::test]
async fn a_read_ends_where_the_fetched_bytes_do_and_costs_no_request() {
    let Opened { source, .. } = opened(1_000_000).await;
    let call = Call::new(CancellationToken::new());
    let pins = source.prefetch_range(200_000..210_000, &call).await.unwrap();
    assert_eq!(call.figures().requests, 1);
    on_thread(move || {
        let control = Control::new(Arc::clone(&source), Arc::clone(&call));
        control.begin(&call, Arc::new(pins));
        let mut reader = RangeReader::new(control);
        reader.seek(SeekFrom::Start(200_000)).unwrap();
        let mut buffer = vec![0; 100_000];
        let length = reader.read(&mut buffer).unwrap();
        assert_eq!(length as u64, 13 * BLOCK_BYTES - 200_000);
        assert_eq!(call.figures().requests, 1);
    })
    .await;
}

#[tokio::test]
async fn near_ranges_share_a_request_and_known_blocks_none() {
    let Opened { source, .. } = opened(2_000_000).await;
    let call = Call::new(CancellationToken::new());
    let ranges = [100_000..110_000, 120_000..130_000, 1_000_000..1_000_001];
    source.prefetch(&ranges, &call).await.unwrap();
    assert_eq!(call.figures().requests, 2);
    source.prefetch(&ranges, &call).await.unwrap();
    assert_eq!(call.figures().requests, 2);
}

#[tokio::test]
async fn two_calls_for_the_same_bytes_fetch_them_once() {
    let Opened { source, .. } = opened(2_000_000).await;
    let calls = [Call::new(CancellationToken::new()), Call::new(CancellationToken::new())];
    let range = slice::from_ref(&(500_000..900_000));
    let (one, other) = tokio::join!(source.prefetch(range, &calls[0]), source.prefetch(range, &calls[1]));
    assert_eq!(one.unwrap().bytes(500_000..900_000), other.unwrap().bytes(500_000..900_000));
    assert_eq!(calls[0].figures().requests + calls[1].figures().requests, 1);
}

#[tokio::test]
async fn a_patch_stands_in_for_the_objects_bytes() {
    let Opened { source, bytes, .. } = opened(100_000).await;
    on_thread(move || {
        let control = Control::new(source, Call::new(CancellationToken::new()));
        control.set_patch(Some(Patch { at: 50_000, bytes: b"patch"[..].into() }));
        let mut reader = RangeReader::new(control);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(
            &read[49_998..50_007],
            [&bytes[49_998..50_000], b"patch", &bytes[50_005..50_007]].concat()
        );
        assert_eq!(read.len(), 100_000);
    })
    .await;
}

#[tokio::test]
async fn the_first_error_is_kept_and_another_version_is_one() {
    let Opened { store, source, .. } = opened(1_000_000).await;
    store.put(&Path::from("v.mp4"), pattern(1_000_001).into()).await.unwrap();
    on_thread(move || {
        let control = Control::new(source, Call::new(CancellationToken::new()));
        let mut reader = RangeReader::new(Arc::clone(&control));
        reader.seek(SeekFrom::Start(600_000)).unwrap();
        assert!(reader.read(&mut [0; 10]).is_err());
        reader.seek(SeekFrom::Start(0)).unwrap();
        assert!(reader.read(&mut [0; 10]).is_err(), "after an error nothing more is read");
        let error = control.take_error().unwrap();
        assert!(matches!(error, VideoError::Changed { at, .. } if at == 600_000 / BLOCK_BYTES * BLOCK_BYTES));
        assert!(!error.to_string().contains("secret"));
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_call_reads_nothing() {
    let Opened { source, .. } = opened(1_000_000).await;
    on_thread(move || {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let control = Control::new(source, Call::new(cancel));
        let mut reader = RangeReader::new(Arc::clone(&control));
        assert!(reader.read(&mut [0; 10]).is_err());
        assert!(matches!(control.take_error(), Some(VideoError::Cancelled { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_limit_on_fetched_bytes_ends_reading() {
    let Opened { source, .. } = opened(4_000_000).await;
    on_thread(move || {
        let control = Control::new(source, Call::new(CancellationToken::new()));
        control.set_fetch_limit(Some(300_000));
        let mut reader = RangeReader::new(Arc::clone(&control));
        assert!(std::io::copy(&mut reader, &mut std::io::sink()).is_err());
        assert!(matches!(control.take_error(), Some(VideoError::NeedsScan { .. })));
    })
    .await;
}

/// A tier that counts what it is asked.
#[derive(Debug, Default)]
struct Shelf {
    blocks: Mutex<HashMap<(String, u64), bytes::Bytes>>,
}

impl BlockTier for Shelf {
    fn get(&self, object: &ObjectKey, block: u64) -> Option<bytes::Bytes> {
        self.blocks.lock().unwrap().get(&(object.as_str().to_owned(), block)).cloned()
    }

    fn put(&self, object: &ObjectKey, block: u64, bytes: bytes::Bytes) {
        self.blocks.lock().unwrap().insert((object.as_str().to_owned(), block), bytes);
    }
}

#[tokio::test]
async fn a_second_tier_spares_requests_and_never_sees_a_signature() {
    let (store, shelf) = (Arc::new(InMemory::new()), Arc::new(Shelf::default()));
    store.put(&Path::from("v.mp4"), pattern(1_000_000).into()).await.unwrap();
    for expected in [1, 0] {
        let object = VideoObject {
            store: Arc::clone(&store) as Arc<dyn ObjectStore>,
            path: Path::from("v.mp4"),
            uri: VideoUri::parse("https://host/v.mp4?signature=secret").unwrap(),
        };
        let cache = Arc::new(BlockCache::with_tier(1 << 20, Arc::clone(&shelf) as Arc<dyn BlockTier>));
        let options = OpenOptions { cache, ..OpenOptions::default() };
        let opening = Call::new(CancellationToken::new());
        let source = Source::open(object, &options, &opening, BLOCK_BYTES).await.unwrap();
        let call = Call::new(CancellationToken::new());
        source.prefetch_range(300_000..500_000, &call).await.unwrap();
        assert_eq!(call.figures().requests, expected);
        // Blocks are handed on by a thread of their own.
        for _ in 0..100 {
            if shelf.blocks.lock().unwrap().len() >= 13 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    assert!(shelf.blocks.lock().unwrap().keys().all(|(key, _)| !key.contains("secret")));
}
