//! Jobs, as a batch sees them.

use std::time::{Duration, Instant};

use spectemp_store::{Claim, DEFAULT_TENANT, Home, StoreError, Submission, VideoRow};
use spectemp_types::{JobId, JobStatus, VideoUri};

use crate::common::{answer, claim, dir, home, round, spec, uri};

#[tokio::test]
async fn the_same_id_with_other_content_names_both() {
    let (_dir, home) = home().await;
    let first = spec("q1", "/v/a.mp4");
    let mut other = spec("q1", "/v/b.mp4");
    other.plan = other.plan.set_all(["seed=7"]).unwrap();
    let submitted = home.ledger().submit("b", &[first.clone(), first.clone(), other.clone()]).await.unwrap();
    let Submission::New(job) = submitted[0] else { panic!("{submitted:?}") };
    assert!(
        matches!(&submitted[1], Submission::Existing { job: same, status: JobStatus::Queued } if *same == job)
    );
    let Submission::Conflict(conflict) = &submitted[2] else { panic!("{submitted:?}") };
    let text = conflict.to_string();
    for part in ["q1", &job.to_string(), "/v/a.mp4", "/v/b.mp4", "seed was 0, is 7"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let elsewhere = home.ledger().submit("another batch", &[other]).await.unwrap();
    assert!(matches!(elsewhere[0], Submission::New(_)));
    assert_eq!(home.ledger().counts(Some("b")).await.unwrap().total(), 1);
}

#[tokio::test]
async fn a_signature_is_neither_content_nor_kept() {
    let (dir, home) = home().await;
    let mut signed = spec("q1", "https://h/a.mp4?sig=first-secret");
    home.ledger().submit("b", &[signed.clone()]).await.unwrap();
    signed.video = uri("https://h/a.mp4?sig=second-secret");
    let again = home.ledger().submit("b", &[signed]).await.unwrap();
    assert!(matches!(again[0], Submission::Existing { .. }));
    home.close().await;
    let file = std::fs::read(dir.path().join("ledger.sqlite")).unwrap();
    assert!(!file.windows(7).any(|window| window == b"-secret"));
}

#[tokio::test]
async fn jobs_are_found_by_id_and_uuid() {
    let (_dir, home) = home().await;
    let mut jobs = Vec::new();
    for batch in ["b1", "b2"] {
        match home.ledger().submit(batch, &[spec("q1", "/v/a.mp4")]).await.unwrap()[0] {
            Submission::New(job) => jobs.push(job),
            _ => panic!(),
        }
    }
    let ledger = home.ledger();
    assert_eq!(ledger.find_job(&jobs[1].to_string(), None).await.unwrap().batch, "b2");
    assert_eq!(ledger.find_job("q1", Some("b1")).await.unwrap().id, jobs[0]);
    let error = ledger.find_job("q1", None).await.unwrap_err();
    assert!(matches!(error, StoreError::Ambiguous { .. }));
    assert!(error.to_string().contains(&jobs[0].to_string()) && error.to_string().contains("b2"));
    assert!(matches!(ledger.find_job("q2", None).await, Err(StoreError::NoJob(_))));
    assert!(matches!(ledger.job(JobId::new()).await, Err(StoreError::NoJob(_))));
}

#[tokio::test]
async fn siblings_on_one_video_come_together() {
    let (_dir, home) = home().await;
    let specs = [spec("1", "/v/a.mp4"), spec("2", "/v/b.mp4"), spec("3", "/v/a.mp4"), spec("4", "/v/a.mp4")];
    home.ledger().submit("b", &specs).await.unwrap();
    let ids = |claimed: &[spectemp_store::Claimed]| {
        claimed.iter().map(|c| c.job.spec.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&claim(&home, "b", 2).await), ["1", "3"]);
    let preferred: VideoUri = uri("/v/a.mp4");
    let next = Claim { batch: Some("b"), worker: "w", limit: 5, prefer_video: Some(&preferred), lease: None };
    assert_eq!(ids(&home.ledger().claim(&next).await.unwrap()), ["4"]);
    assert_eq!(ids(&home.ledger().claim(&next).await.unwrap()), ["2"]);
    assert!(claim(&home, "b", 1).await.is_empty());
}

#[tokio::test]
async fn a_poisonous_job_runs_alone_and_ends() {
    let dir = dir();
    let mut home = Home::open(dir.path(), false).await.unwrap();
    home.ledger().submit("b", &[spec("poison", "/v/a.mp4"), spec("good", "/v/a.mp4")]).await.unwrap();
    for deaths in 1..=2 {
        assert_eq!(claim(&home, "b", 1).await[0].job.spec.id, "poison");
        home.close().await;
        home = Home::open(dir.path(), false).await.unwrap();
        assert_eq!(home.ledger().find_job("poison", None).await.unwrap().crashes, deaths);
    }
    // From now on it waits for the others and runs alone.
    let mut good = claim(&home, "b", 2).await;
    assert_eq!(good.len(), 1);
    assert_eq!(good[0].job.spec.id, "good");
    assert!(claim(&home, "b", 2).await.is_empty());
    answer(&home, good.remove(0)).await;
    for _ in 0..8 {
        assert_eq!(home.reclaimed().dead, 0);
        assert_eq!(claim(&home, "b", 2).await[0].job.spec.id, "poison");
        home.close().await;
        home = Home::open(dir.path(), false).await.unwrap();
    }
    assert_eq!(home.reclaimed().dead, 1);
    let poison = home.ledger().find_job("poison", None).await.unwrap();
    assert_eq!(poison.status, JobStatus::Failed);
    assert!(poison.error.unwrap().contains("died 10 times"));
    assert_eq!(home.ledger().retry_failed(DEFAULT_TENANT, "b").await.unwrap(), 1);
    assert_eq!(claim(&home, "b", 2).await.len(), 1);
}

#[tokio::test]
async fn a_job_that_gets_on_is_never_blamed() {
    let dir = dir();
    let mut home = Home::open(dir.path(), false).await.unwrap();
    home.ledger().submit("b", &[spec("long", "/v/a.mp4")]).await.unwrap();
    for no in 0..10 {
        let claimed = claim(&home, "b", 1).await;
        assert_eq!(claimed[0].rounds.len(), no as usize);
        home.ledger().checkpoint(&claimed[0].lease, &round(no)).await.unwrap();
        home.close().await;
        home = Home::open(dir.path(), false).await.unwrap();
    }
    assert_eq!(home.ledger().find_job("long", None).await.unwrap().crashes, 0);
}

#[tokio::test]
async fn jobs_that_a_changed_file_no_longer_names_wait() {
    let (_dir, home) = home().await;
    let mut jobs = Vec::new();
    for submission in
        home.ledger().submit("b", &["1", "2", "3"].map(|id| spec(id, "/v/a.mp4"))).await.unwrap()
    {
        match submission {
            Submission::New(job) => jobs.push(job),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(home.ledger().hold_others("b", [jobs[1]]).await.unwrap(), 2);
    let claimed = claim(&home, "b", 5).await;
    assert_eq!(claimed.iter().map(|claimed| claimed.job.id).collect::<Vec<_>>(), [jobs[1]]);
    assert_eq!(home.ledger().hold_others("b", [jobs[0], jobs[2]]).await.unwrap(), 0);
    assert_eq!(claim(&home, "b", 5).await.len(), 2);
    assert_eq!(home.ledger().hold_others("b", []).await.unwrap(), 0, "running jobs run on");
}

#[tokio::test]
async fn videos_are_kept_per_version() {
    let (_dir, home) = home().await;
    let row = |etag: Option<&str>, record: u8| VideoRow {
        uri: "https://h/a.mp4".into(),
        etag: etag.map(str::to_owned),
        bytes: 10,
        duration_s: Some(1.5),
        probe: serde_json::json!({"codec": "h264"}),
        record: vec![record],
    };
    let signed = uri("https://h/a.mp4?sig=1");
    assert_eq!(home.ledger().video(&signed).await.unwrap(), None);
    let first = home.ledger().put_video(&row(Some("e1"), 1)).await.unwrap();
    assert_eq!(home.ledger().put_video(&row(Some("e1"), 2)).await.unwrap(), first);
    assert_eq!(home.ledger().video(&signed).await.unwrap(), Some(row(Some("e1"), 2)));
    tokio::time::sleep(Duration::from_millis(3)).await;
    assert_ne!(home.ledger().put_video(&row(None, 3)).await.unwrap(), first);
    assert_eq!(home.ledger().video(&signed).await.unwrap(), Some(row(None, 3)));
}

#[tokio::test]
async fn ten_thousand_jobs_are_submitted_and_claimed_in_seconds() {
    let (_dir, home) = home().await;
    let specs: Vec<_> = (0..10_000).map(|n| spec(&format!("q{n}"), &format!("/v/{}.mp4", n % 50))).collect();
    let start = Instant::now();
    assert_eq!(home.ledger().submit("b", &specs).await.unwrap().len(), 10_000);
    let submit = start.elapsed();
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(claim(&home, "b", 4).await.len(), 4);
    }
    let claims = start.elapsed() / 100;
    eprintln!("submit of 10000 jobs {submit:?}, a claim of 4 of them {claims:?}");
    assert!(submit < Duration::from_secs(20), "{submit:?}");
    assert!(claims < Duration::from_millis(100), "{claims:?}");
}
