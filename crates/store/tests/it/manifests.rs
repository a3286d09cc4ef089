//! Manifests of batches on both databases: who reads, and when a batch is sealed.

use std::time::Duration;

use spectemp_store::{Batch, Ledger, NewJob, Sealing};

use crate::{common::spec, ledgers::both};

const MINUTE: Duration = Duration::from_secs(60);

fn batch() -> Batch {
    Batch { tenant: "acme".into(), name: "b".into(), ..Batch::default() }
}

fn sealing() -> Sealing<'static> {
    Sealing { tenant: "acme", batch: "b", bad_lines: 0, new_jobs: false, manifest: None }
}

async fn sealed(ledger: &Ledger) -> bool {
    ledger.batch("acme", "b").await.unwrap().unwrap().sealed
}

#[tokio::test]
async fn a_manifest_has_one_reader_at_a_time() {
    for (name, ledger, raw) in both().await {
        assert_eq!(ledger.take_manifest("a", MINUTE).await.unwrap(), None, "{name}");
        ledger.put_manifest(&batch(), "s3://b/q.jsonl", "{}").await.unwrap();
        let first = ledger.take_manifest("a", MINUTE).await.unwrap().unwrap();
        assert_eq!(
            (first.uri.as_str(), first.tenant.as_str(), first.batch.as_str()),
            ("s3://b/q.jsonl", "acme", "b")
        );
        assert_eq!((first.defaults.as_str(), first.tries, first.was_begun()), ("{}", 1, false));
        assert_eq!(ledger.take_manifest("b", MINUTE).await.unwrap(), None, "{name}: it is held");
        assert!(ledger.hold_manifest(&first, MINUTE).await.unwrap());

        raw.execute("update ledger_manifests set held_until = 1").await;
        let second = ledger.take_manifest("b", MINUTE).await.unwrap().unwrap();
        assert_eq!((second.id, second.tries), (first.id, 2), "{name}: its hold had lapsed");
        assert!(!ledger.hold_manifest(&first, MINUTE).await.unwrap());
        let late = Sealing { manifest: Some(&first), bad_lines: 9, ..sealing() };
        assert!(!ledger.seal_batch(&late).await.unwrap(), "{name}: it belongs to another");
        assert_eq!(ledger.batch("acme", "b").await.unwrap().unwrap().bad_lines, 0, "and nothing is changed");
        ledger.put_manifest_off(&first, "late", MINUTE).await.unwrap();
        ledger.let_manifest_go(&first).await.unwrap();
        assert!(ledger.hold_manifest(&second, MINUTE).await.unwrap(), "{name}");

        ledger.let_manifest_go(&second).await.unwrap();
        let third = ledger.take_manifest("c", MINUTE).await.unwrap().unwrap();
        assert_eq!((third.tries, third.was_begun()), (2, true), "{name}: a stop is no failure");
        ledger.put_manifest_off(&third, "away", MINUTE).await.unwrap();
        assert_eq!(ledger.take_manifest("d", MINUTE).await.unwrap(), None, "{name}: not before its time");
        raw.execute("update ledger_manifests set held_until = 1").await;
        let fourth = ledger.take_manifest("d", MINUTE).await.unwrap().unwrap();
        assert_eq!((fourth.tries, fourth.error.as_deref()), (3, Some("away")), "{name}");
    }
}

#[tokio::test]
async fn a_batch_is_sealed_with_its_last_manifest() {
    for (name, ledger, _raw) in both().await {
        ledger.put_manifest(&batch(), "s3://b/1.jsonl", "{}").await.unwrap();
        ledger.put_manifest(&batch(), "s3://b/2.jsonl", "{}").await.unwrap();
        let first = ledger.take_manifest("a", MINUTE).await.unwrap().unwrap();
        let second = ledger.take_manifest("a", MINUTE).await.unwrap().unwrap();
        assert_eq!((first.uri.as_str(), second.uri.as_str()), ("s3://b/1.jsonl", "s3://b/2.jsonl"), "{name}");
        assert!(ledger.seal_batch(&sealing()).await.unwrap());
        assert!(!sealed(&ledger).await, "{name}: an upload does not seal what manifests are still read for");
        assert!(ledger.seal_batch(&Sealing { manifest: Some(&second), ..sealing() }).await.unwrap());
        assert!(!sealed(&ledger).await, "{name}");
        ledger
            .put_batch(&Batch { exported_ms: Some(1), told_ms: Some(1), tries: 3, ..batch() })
            .await
            .unwrap();
        let last = Sealing { manifest: Some(&first), bad_lines: 4, new_jobs: true, ..sealing() };
        assert!(ledger.seal_batch(&last).await.unwrap());
        let ended = ledger.batch("acme", "b").await.unwrap().unwrap();
        assert_eq!((ended.sealed, ended.bad_lines, ended.tries), (true, 4, 0), "{name}");
        assert_eq!((ended.exported_ms, ended.told_ms), (None, None), "{name}: there is more to tell");
        assert_eq!(ledger.take_manifest("b", MINUTE).await.unwrap(), None, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_end_together_leave_a_sealed_batch() {
    for (name, ledger, _raw) in both().await {
        for _ in 0..20 {
            ledger.put_manifest(&batch(), "s3://b/q.jsonl", "{}").await.unwrap();
            let manifest = ledger.take_manifest("a", MINUTE).await.unwrap().unwrap();
            let (of_manifest, upload) = (Sealing { manifest: Some(&manifest), ..sealing() }, sealing());
            let (a, b) = tokio::join!(ledger.seal_batch(&of_manifest), ledger.seal_batch(&upload));
            assert!(a.unwrap() && b.unwrap(), "{name}");
            assert!(sealed(&ledger).await, "{name}");
        }
    }
}

fn listed(numbers: std::ops::Range<u32>) -> Vec<NewJob> {
    numbers.map(|number| spec(&format!("q{number}"), "/v/a.mp4").into()).collect()
}

/// Queued and cancelled jobs of the batch.
async fn jobs(ledger: &Ledger) -> (u64, u64) {
    let counts = ledger.counts_of(Some("acme"), Some("b")).await.unwrap();
    (counts.queued, counts.cancelled)
}

#[tokio::test]
async fn a_cancelled_batch_gets_no_more_jobs_of_its_manifests() {
    for (name, ledger, _raw) in both().await {
        ledger.put_manifest(&batch(), "s3://b/1.jsonl", "{}").await.unwrap();
        ledger.put_manifest(&batch(), "s3://b/2.jsonl", "{}").await.unwrap();
        let read = ledger.take_manifest("a", MINUTE).await.unwrap().unwrap();
        assert!(ledger.submit_listed(&read, &listed(0..3)).await.unwrap().is_some(), "{name}");
        assert_eq!(ledger.cancel_batch("acme", "b").await.unwrap(), 3, "{name}");
        assert!(ledger.submit_listed(&read, &listed(3..6)).await.unwrap().is_none(), "{name}");
        assert!(ledger.submit_listed(&read, &listed(3..4)).await.unwrap().is_none(), "{name}: not even one");
        assert!(!ledger.hold_manifest(&read, MINUTE).await.unwrap(), "{name}");
        assert!(
            !ledger.seal_batch(&Sealing { manifest: Some(&read), bad_lines: 9, ..sealing() }).await.unwrap()
        );
        assert_eq!(
            ledger.take_manifest("b", MINUTE).await.unwrap(),
            None,
            "{name}: nobody reads the other one"
        );
        let ended = ledger.batch("acme", "b").await.unwrap().unwrap();
        assert_eq!((ended.sealed, ended.bad_lines), (true, 1), "{name}");
        let bad = ledger.bad_lines("acme", "b", None, 10).await.unwrap();
        assert_eq!(bad.rows.len(), 1, "{name}");
        assert_eq!(bad.rows[0].line, 0);
        assert!(bad.rows[0].error.contains("cancelled"), "{}", bad.rows[0].error);
        // An upload to it goes on as to any other.
        ledger.submit_jobs("acme", "b", &listed(6..8)).await.unwrap();
        assert_eq!(jobs(&ledger).await, (2, 3), "{name}");
        assert_eq!(ledger.cancel_batch("acme", "b").await.unwrap(), 2);
        assert_eq!(ledger.batch("acme", "b").await.unwrap().unwrap().bad_lines, 1, "{name}: once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_in_the_middle_of_a_submission_leaves_no_job_in_the_queue() {
    for (name, ledger, _raw) in both().await {
        let mut all = 0;
        for round in 0..20 {
            ledger.put_manifest(&batch(), "s3://b/1.jsonl", "{}").await.unwrap();
            let read = ledger.take_manifest("a", MINUTE).await.unwrap().unwrap();
            let jobs_of_it = listed(round * 100..(round + 1) * 100);
            let (submitted, cancelled) =
                tokio::join!(ledger.submit_listed(&read, &jobs_of_it), ledger.cancel_batch("acme", "b"));
            let came = submitted.unwrap().map_or(0, |submissions| submissions.len() as u64);
            assert_eq!(cancelled.unwrap(), came, "{name}");
            all += came;
        }
        assert_eq!(jobs(&ledger).await, (0, all), "{name}");
    }
}
