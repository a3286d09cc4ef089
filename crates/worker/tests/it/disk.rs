//! Disks: the tier of byte blocks behind the cache in memory, and a disk that is full.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use spectemp_store::{DiskCache, Home, LedgerOptions, Locations, Submission};
use spectemp_types::JobStatus;
use spectemp_video::{BlockTier, ObjectKey};
use spectemp_worker::{DiskTier, Event, Options, Outcome, Runner, Stop, Work, WorkerError};
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{ANSWER, Place, SEGMENT, lines, spec};

#[test]
fn blocks_of_the_disk_tier_outlive_the_process_and_stay_apart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || DiskTier::new(DiskCache::open(dir.path(), 1 << 20).unwrap());
    let key = |name: &str| ObjectKey::new(&format!("s3://bucket/{name}"), Some("\"e1\""), 100);
    let tier = open();
    let (a, b) = (key("a"), key("b"));
    tier.put(&a, 0, Bytes::from_static(b"a0"));
    tier.put(&a, 1, Bytes::from_static(b"a1"));
    tier.put(&b, 0, Bytes::from_static(b"b0"));
    let again = open();
    assert_eq!(again.get(&a, 0).as_deref(), Some(b"a0".as_slice()));
    assert_eq!(again.get(&a, 1).as_deref(), Some(b"a1".as_slice()));
    assert_eq!(again.get(&b, 0).as_deref(), Some(b"b0".as_slice()));
    assert_eq!(again.get(&b, 1), None);
}

#[test]
fn a_disk_tier_that_cannot_write_costs_time_only() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("blocks");
    let tier = DiskTier::new(DiskCache::open(&folder, 1 << 20).unwrap());
    // A folder that is gone stands for a disk that is full.
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    let key = ObjectKey::new("s3://bucket/a", None, 100);
    tier.put(&key, 0, Bytes::from_static(b"a0"));
    assert_eq!(tier.get(&key, 0), None);
}

/// Runs `count` jobs of many rounds on a ledger of at most `pages`; what was told, and how the run ended.
async fn run(home: &Arc<Home>, place: &Place, count: usize) -> (Vec<Event>, Result<(), WorkerError>) {
    let video = place.video("a.mp4", 90);
    let specs: Vec<_> = (0..count).map(|no| spec(&format!("q{no}"), &video, &[])).collect();
    let submitted = home.ledger().submit("batch", &specs).await.unwrap();
    let jobs: HashMap<_, _> = submitted
        .into_iter()
        .zip(&specs)
        .map(|(submission, spec)| match submission {
            Submission::New(job) | Submission::Existing { job, .. } => (job, spec.video.clone()),
            Submission::Conflict(conflict) => panic!("{conflict}"),
        })
        .collect();
    let models = lines(&[SEGMENT, SEGMENT, SEGMENT, ANSWER]);
    let runner = Runner::new(home.clone(), Arc::new(Locations::default()), models, Options::default());
    let (sender, mut receiver) = unbounded_channel();
    let ended = runner.run(Work { batch: "batch".to_owned(), jobs }, Stop::default(), sender).await;
    let mut events = Vec::new();
    while let Some(event) = receiver.recv().await {
        events.push(event);
    }
    (events, ended.map(drop))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_a_run_and_space_lets_it_go_on() {
    let place = Place::new();
    let dir = place.dir.path().join("home");
    // The schema's pages and room for some jobs. A limit of pages has no reserve to give up, as a disk has: it must leave
    // room in a page for the end of a job.
    let options = LedgerOptions { max_pages: Some(118), ..LedgerOptions::default() };
    let home = Arc::new(Home::open_with(&dir, false, &options).await.unwrap());
    const JOBS: usize = 60;
    let (events, ended) = run(&home, &place, JOBS).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("no space left"), "{error}");
    let answered = events
        .iter()
        .filter(|event| matches!(event, Event::Ended { outcome: Outcome::Answered(_), .. }))
        .count();
    let counts = home.ledger().counts(Some("batch")).await.unwrap();
    assert_eq!(counts.answered as usize, answered, "what was told is what is kept");
    assert!(answered < JOBS && counts.running == 0, "{counts:?}");
    assert!(counts.failed <= Options::default().concurrency as u64, "others wait: {counts:?}");
    Arc::try_unwrap(home).unwrap().close().await;

    // There is space again: no answer is lost, and every job comes to its own.
    let home = Arc::new(Home::open(&dir, false).await.unwrap());
    home.ledger().retry_failed(spectemp_store::DEFAULT_TENANT, "batch").await.unwrap();
    let (_, ended) = run(&home, &place, JOBS).await;
    ended.unwrap();
    let counts = home.ledger().counts(Some("batch")).await.unwrap();
    assert_eq!(counts.answered as usize, JOBS, "{counts:?}");
    let job = home.ledger().find_job("q0", Some("batch")).await.unwrap();
    assert_eq!(job.status, JobStatus::Answered);
}
