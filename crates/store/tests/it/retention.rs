//! What retention forgets, and what it leaves, the same on SQLite and on Postgres.

use std::time::Duration;

use bytes::Bytes;
use spectemp_store::{
    BadLine, Batch, Claim, DEFAULT_TENANT, Forgotten, Freed, LocationOptions, Locations, ObjectKey, Objects,
    Store, StoreError,
};
use spectemp_types::{JobId, JobStatus};

use crate::{
    common::{dir, round, spec, trace, uri},
    ledgers::both,
};

const NOW: Duration = Duration::ZERO;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Answers the next waiting job of `batch`, with a thumbnail.
async fn answer(store: &Store, batch: &str) -> (JobId, u32) {
    let claim = Claim { batch: Some(batch), worker: "w", limit: 1, prefer_video: None, lease: Some(DAY) };
    let claimed = store.ledger().claim(&claim).await.unwrap().remove(0);
    let (job, epoch) = (claimed.job.id, claimed.lease.epoch());
    store.ledger().checkpoint(&claimed.lease, &round(0)).await.unwrap();
    let thumbnail = ObjectKey::Thumbnail { job, round: 0, frame: 0 };
    store.objects().put(&thumbnail, Bytes::from_static(b"png")).await.unwrap();
    let trace = trace(job, claimed.job.spec.clone(), vec![round(0)]);
    store.finish(claimed.lease, &trace).await.unwrap();
    // The next look is later than the end by the ledger's clock.
    tokio::time::sleep(Duration::from_millis(3)).await;
    (job, epoch)
}

fn objects(place: &tempfile::TempDir) -> Objects {
    let locations = Locations::with_environment(LocationOptions::default(), []);
    Objects::at(&uri(place.path().to_str().unwrap()), &locations).unwrap()
}

#[tokio::test]
async fn only_jobs_past_their_time_are_forgotten() {
    for (kind, ledger, _raw) in both().await {
        let place = dir();
        let store = Store::new(ledger, objects(&place));
        let ledger = store.ledger();
        let specs = ["q1", "q2", "q3"].map(|id| spec(id, "/v/a.mp4"));
        ledger.submit("b", &specs).await.unwrap();
        let (old, epoch) = answer(&store, "b").await;
        ledger.put_request(DEFAULT_TENANT, "key", b"hash", old).await.unwrap();
        let counts = ledger.counts_of(Some(DEFAULT_TENANT), Some("b")).await.unwrap();
        assert_eq!((counts.answered, counts.queued), (1, 2), "{kind}");

        assert_eq!(store.forget(DAY).await.unwrap(), Forgotten::default(), "{kind}: a day is not over");
        let forgotten = store.forget(NOW).await.unwrap();
        assert_eq!(forgotten, Forgotten { jobs: 1, objects: 2, batches: 0 }, "{kind}");
        assert!(matches!(ledger.job(old).await, Err(StoreError::NoJob(_))), "{kind}");
        assert_eq!(ledger.rounds_from(old, 0).await.unwrap(), [], "{kind}");
        assert_eq!(store.objects().trace(old, epoch).await.unwrap(), None, "{kind}");
        assert_eq!(ledger.request(DEFAULT_TENANT, "key").await.unwrap(), None, "{kind}");
        let counts = ledger.counts_of(Some(DEFAULT_TENANT), Some("b")).await.unwrap();
        assert_eq!((counts.answered, counts.queued), (0, 2), "{kind}: waiting jobs stay");

        // A job of the same id is a new one.
        let again = ledger.submit("b", &specs[..1]).await.unwrap();
        assert!(matches!(again[0], spectemp_store::Submission::New(job) if job != old), "{kind}: {again:?}");
    }
}

#[tokio::test]
async fn a_batch_that_is_owed_something_stays_whole() {
    for (kind, ledger, _raw) in both().await {
        let place = dir();
        let store = Store::new(ledger, objects(&place));
        let ledger = store.ledger();
        let batch = Batch {
            tenant: DEFAULT_TENANT.into(),
            name: "b".into(),
            sealed: true,
            results: Some("s3://bucket/results/".into()),
            ..Batch::default()
        };
        ledger.put_batch(&batch).await.unwrap();
        let bad = BadLine { line: 3, error: "no object".into() };
        ledger.put_bad_lines(DEFAULT_TENANT, "b", &[bad]).await.unwrap();
        ledger.submit("b", &[spec("q1", "/v/a.mp4")]).await.unwrap();
        let (job, _) = answer(&store, "b").await;

        assert_eq!(store.forget(NOW).await.unwrap(), Forgotten::default(), "{kind}: its results are owed");
        assert_eq!(ledger.job(job).await.unwrap().status, JobStatus::Answered, "{kind}");
        ledger.mark_exported(DEFAULT_TENANT, "b").await.unwrap();
        let forgotten = store.forget(NOW).await.unwrap();
        assert_eq!(forgotten, Forgotten { jobs: 1, objects: 2, batches: 1 }, "{kind}");
        assert_eq!(ledger.batch(DEFAULT_TENANT, "b").await.unwrap(), None, "{kind}");
        assert_eq!(ledger.bad_lines(DEFAULT_TENANT, "b", None, 9).await.unwrap().rows, [], "{kind}");
    }
}

#[tokio::test]
async fn orphans_are_deleted_when_they_are_old_enough() {
    for (kind, ledger, _raw) in both().await {
        let place = dir();
        let store = Store::new(ledger, objects(&place));
        store.ledger().submit("b", &[spec("q1", "/v/a.mp4")]).await.unwrap();
        let (job, epoch) = answer(&store, "b").await;
        // A late writer's trace, and a thumbnail of nobody.
        let late = trace(job, spec("q1", "/v/a.mp4"), vec![]);
        store.objects().put_trace(epoch + 7, &late).await.unwrap();
        let stray = ObjectKey::Thumbnail { job: JobId::new(), round: 0, frame: 0 };
        store.objects().put(&stray, Bytes::from_static(b"12345")).await.unwrap();

        assert_eq!(
            store.free_orphans(DAY).await.unwrap(),
            Freed::default(),
            "{kind}: their rows may be coming"
        );
        let freed = store.free_orphans(NOW).await.unwrap();
        assert_eq!(freed.objects, 2, "{kind}");
        assert!(freed.bytes > 5, "{kind}");
        assert!(store.objects().trace(job, epoch).await.unwrap().is_some(), "{kind}");
        assert_eq!(store.free_orphans(NOW).await.unwrap(), Freed::default(), "{kind}");
    }
}

#[tokio::test]
async fn idempotency_keys_are_forgotten_by_age() {
    for (kind, ledger, _raw) in both().await {
        let job = JobId::new();
        ledger.put_request(DEFAULT_TENANT, "key", b"hash", job).await.unwrap();
        assert_eq!(ledger.forget_requests(DAY).await.unwrap(), 0, "{kind}");
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert_eq!(ledger.forget_requests(NOW).await.unwrap(), 1, "{kind}");
        assert_eq!(ledger.request(DEFAULT_TENANT, "key").await.unwrap(), None, "{kind}");
    }
}
