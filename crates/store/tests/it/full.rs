//! A full disk: jobs end with an error, and the ledger stays sound.

use spectemp_store::{DEFAULT_TENANT, Home, LedgerOptions, StoreError};
use spectemp_types::JobStatus;

use crate::common::{claim, dir, round, spec, trace};

async fn small(dir: &std::path::Path, max_pages: u32) -> Home {
    Home::open_with(dir, false, &LedgerOptions { max_pages: Some(max_pages), ..LedgerOptions::default() })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_full_ledger_ends_jobs_and_stays_sound() {
    let dir = dir();
    let home = small(dir.path(), 60).await;
    home.ledger().submit("b", &[spec("q1", "/v/a.mp4"), spec("q2", "/v/b.mp4")]).await.unwrap();
    let claimed = claim(&home, "b", 1).await.remove(0);
    let mut committed = 0;
    let error = loop {
        let mut large = round(committed);
        large.warnings = vec!["x".repeat(10_000)];
        match home.ledger().checkpoint(&claimed.lease, &large).await {
            Ok(()) => committed += 1,
            Err(error) => break error,
        }
        assert!(committed < 1000, "the limit never came");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(committed > 0);

    // The job can still be ended: its row needs no new page.
    home.ledger().fail(claimed.lease, &error.to_string(), false).await.unwrap();
    let job = home.ledger().job(claimed.job.id).await.unwrap();
    assert_eq!(job.status, JobStatus::Failed);
    assert!(job.error.unwrap().contains("no space left"));
    let many: Vec<_> = (0..1000).map(|n| spec(&format!("more {n}"), "/v/c.mp4")).collect();
    assert!(matches!(home.ledger().submit("b", &many).await, Err(StoreError::Full { .. })));
    assert_eq!(home.ledger().counts(None).await.unwrap().total(), 2, "all of them or none");
    home.close().await;

    // With space again, the job goes on from its last committed round.
    let home = Home::open(dir.path(), false).await.unwrap();
    assert_eq!(home.ledger().retry_failed(DEFAULT_TENANT, "b").await.unwrap(), 1);
    let again = claim(&home, "b", 1).await.remove(0);
    assert_eq!(again.rounds.len(), committed as usize);
    home.ledger().checkpoint(&again.lease, &round(committed)).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_finds_no_space_fails_its_job() {
    let dir = dir();
    let home = small(dir.path(), 60).await;
    home.ledger().submit("b", &[spec("q1", "/v/a.mp4")]).await.unwrap();
    let claimed = claim(&home, "b", 1).await.remove(0);
    let mut trace = trace(claimed.job.id, claimed.job.spec.clone(), vec![round(0)]);
    trace.answer.text = "x".repeat(400_000);
    let error = home.finish(claimed.lease, &trace).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    let job = home.ledger().job(claimed.job.id).await.unwrap();
    assert_eq!(job.status, JobStatus::Failed);
    assert!(home.ledger().answer(claimed.job.id).await.unwrap().is_none());
}

/// A real full disk: `mount -t tmpfs -o size=4m tmpfs DIR`, then `SPECTEMP_SMALL_DISK=DIR cargo nextest run --run-ignored all`.
#[tokio::test]
#[ignore = "needs SPECTEMP_SMALL_DISK, an empty file system of about 4 MB"]
async fn a_full_disk_still_takes_the_last_words() {
    let disk = std::env::var("SPECTEMP_SMALL_DISK").unwrap();
    let dir = std::path::Path::new(&disk).join("home");
    let home = Home::open(&dir, false).await.unwrap();
    home.ledger()
        .submit("b", &[spec("q1", "/v/a.mp4"), spec("q2", "/v/a.mp4"), spec("q3", "/v/a.mp4")])
        .await
        .unwrap();
    let mut claimed = claim(&home, "b", 3).await;
    let mut no = 0;
    let error = loop {
        let mut large = round(no);
        large.warnings = vec!["x".repeat(20_000)];
        match home.ledger().checkpoint(&claimed[0].lease, &large).await {
            Ok(()) => no += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    // The objects are on the same disk.
    let last = claimed.pop().unwrap();
    let mut large = trace(last.job.id, last.job.spec.clone(), vec![]);
    large.answer.text = "x".repeat(2_000_000);
    let error = home.finish(last.lease, &large).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    for claimed in claimed {
        home.ledger().fail(claimed.lease, &error.to_string(), false).await.unwrap();
    }
    assert_eq!(home.ledger().counts(None).await.unwrap().failed, 3);
    home.close().await;
    let home = Home::open(&dir, false).await.unwrap();
    assert_eq!(home.ledger().counts(None).await.unwrap().failed, 3);
    let first = home.ledger().find_job("q1", None).await.unwrap();
    assert_eq!(home.ledger().rounds(first.id).await.unwrap().len(), no as usize);
    assert!(home.gc(&Default::default()).await.is_ok());
}
