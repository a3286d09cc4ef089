//! What several workers and tenants need of a ledger, the same on SQLite and on Postgres.

use std::time::Duration;

use spectemp_store::{
    BadLine, Batch, Claim, Claimed, Counts, DEFAULT_TENANT, Finished, JobFilter, Lease, Ledger, LedgerKind,
    LedgerOptions, MigrateOptions, NewJob, ObjectKey, Page, StoreError, Submission, Webhook, migrate,
};
use spectemp_types::{JobId, JobSpec, JobStatus};

use crate::{
    common::{round, spec, trace},
    ledgers::both,
};

const LEASE: Duration = Duration::from_secs(60);

fn job(id: &str, video: &str, priority: i32) -> NewJob {
    NewJob { priority, ..NewJob::from(spec(id, video)) }
}

async fn submit(ledger: &Ledger, jobs: &[NewJob]) -> Vec<JobId> {
    let submissions = ledger.submit_jobs(DEFAULT_TENANT, "b", jobs).await.unwrap();
    let new = |submission| match submission {
        Submission::New(job) => job,
        other => panic!("{other:?}"),
    };
    submissions.into_iter().map(new).collect()
}

async fn claim_for(ledger: &Ledger, worker: &str, limit: usize, lease: Duration) -> Vec<Claimed> {
    let claim = Claim { batch: None, worker, limit, prefer_video: None, lease: Some(lease) };
    ledger.claim(&claim).await.unwrap()
}

async fn claim(ledger: &Ledger, worker: &str, limit: usize) -> Vec<Claimed> {
    claim_for(ledger, worker, limit, LEASE).await
}

fn ids(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|claimed| claimed.job.spec.id.as_str()).collect()
}

/// Claims with a lease that is over at once, and takes it back: a worker that died.
async fn die_with(ledger: &Ledger, worker: &str) -> Vec<String> {
    let claimed = claim_for(ledger, worker, 1, Duration::ZERO).await;
    tokio::time::sleep(Duration::from_millis(3)).await;
    ledger.expire().await.unwrap();
    claimed.into_iter().map(|claimed| claimed.job.spec.id).collect()
}

async fn answer(ledger: &Ledger, lease: Lease, spec: JobSpec) -> Result<(), StoreError> {
    let key = ObjectKey::Trace { job: lease.job(), epoch: lease.epoch() };
    let trace = trace(lease.job(), spec, vec![round(0)]);
    let finished = Finished {
        answer: &trace.answer,
        totals: &trace.totals,
        video: &trace.video,
        target: &trace.target,
        draft: trace.draft.as_ref(),
        trace: &key,
    };
    ledger.finish(lease, finished).await
}

#[tokio::test]
async fn a_job_goes_its_way() {
    for (kind, ledger, _raw) in both().await {
        ledger.ping().await.unwrap();
        assert_eq!(ledger.kind() == LedgerKind::Sqlite, kind == "sqlite");
        let jobs = submit(&ledger, &[job("q1", "/v/a.mp4", 3)]).await;
        let again = ledger.submit_jobs(DEFAULT_TENANT, "b", &[job("q1", "/v/a.mp4", 3)]).await.unwrap();
        assert!(
            matches!(again[0], Submission::Existing { job, status: JobStatus::Queued } if job == jobs[0])
        );
        let other = ledger.submit_jobs(DEFAULT_TENANT, "b", &[job("q1", "/v/b.mp4", 3)]).await.unwrap();
        assert!(
            matches!(&other[0], Submission::Conflict(conflict) if conflict.to_string().contains("/v/b.mp4")),
            "{other:?}"
        );

        let claimed = claim(&ledger, "w1", 5).await.remove(0);
        assert_eq!((claimed.lease.epoch(), claimed.job.status), (1, JobStatus::Running));
        assert_eq!(claimed.job.spec, spec("q1", "/v/a.mp4"));
        ledger.checkpoint(&claimed.lease, &round(0)).await.unwrap();
        let gap = ledger.checkpoint(&claimed.lease, &round(0)).await.unwrap_err();
        assert!(matches!(gap, StoreError::Gap { committed: 1, .. }), "{gap}");
        let row = ledger.job(jobs[0]).await.unwrap();
        assert_eq!((row.rounds, row.worker.as_deref(), row.priority), (1, Some("w1"), 3));
        assert_eq!(row, Page { rows: vec![row.clone()], next: None::<spectemp_store::Cursor> }.rows[0]);
        answer(&ledger, claimed.lease, claimed.job.spec).await.unwrap();

        let row = ledger.answer(jobs[0]).await.unwrap().unwrap();
        assert_eq!((row.answer.text.as_str(), row.answer.choice, row.epoch), ("red", Some('A'), 1));
        assert_eq!(row.video.etag.as_deref(), Some("\"e1\""));
        assert!(row.answered_ms > 1_700_000_000_000);
        assert_eq!(ledger.rounds(jobs[0]).await.unwrap(), [round(0)]);
        assert_eq!(ledger.job(jobs[0]).await.unwrap().worker, None);
        assert_eq!(ledger.counts(None).await.unwrap(), Counts { answered: 1, ..Counts::default() });
        assert!(matches!(ledger.job(JobId::new()).await, Err(StoreError::NoJob(_))));
        assert_eq!(ledger.find_job("q1", None).await.unwrap().id, jobs[0]);
    }
}

#[tokio::test]
async fn the_highest_priority_comes_first_then_the_oldest_with_its_siblings() {
    for (kind, ledger, _raw) in both().await {
        let jobs = [
            job("1", "/v/a.mp4", 0),
            job("2", "/v/b.mp4", 0),
            job("3", "/v/a.mp4", 5),
            job("4", "/v/b.mp4", -1),
            job("5", "/v/c.mp4", 0),
            job("6", "/v/b.mp4", 0),
        ];
        let jobs = submit(&ledger, &jobs).await;
        assert_eq!(ids(&claim(&ledger, "w", 4).await), ["3", "1"], "{kind}");
        ledger.set_priority(jobs[3], 9).await.unwrap();
        assert_eq!(ids(&claim(&ledger, "w", 2).await), ["4", "2"], "{kind}");
        assert_eq!(ids(&claim(&ledger, "w", 1).await), ["5"], "{kind}");
        assert_eq!(ids(&claim(&ledger, "w", 1).await), ["6"], "{kind}");
        assert!(claim(&ledger, "w", 1).await.is_empty());
    }
}

#[tokio::test]
async fn two_tenants_share_nothing_but_the_ledger() {
    for (_, ledger, _raw) in both().await {
        for tenant in ["acme", "zeta"] {
            let submitted = ledger.submit_jobs(tenant, "b", &[job("q1", "/v/a.mp4", 0)]).await.unwrap();
            assert!(
                matches!(submitted[0], Submission::New(_)),
                "the same id is another job for another tenant"
            );
        }
        assert_eq!(claim(&ledger, "w", 5).await.len(), 1, "siblings are of one tenant");
        let of = |tenant| JobFilter { tenant: Some(tenant), ..JobFilter::default() };
        let page = ledger.jobs(&of("acme"), None, 10).await.unwrap();
        assert_eq!(page.rows.iter().map(|job| job.tenant.as_str()).collect::<Vec<_>>(), ["acme"]);
        assert_eq!(ledger.counts_of(Some("acme"), None).await.unwrap().running, 1);
        assert_eq!(ledger.counts_of(Some("zeta"), Some("b")).await.unwrap().queued, 1);
        assert_eq!(ledger.counts_of(None, None).await.unwrap().total(), 2);
        assert_eq!(ledger.cancel_batch("zeta", "b").await.unwrap(), 1);
        assert_eq!(ledger.counts_of(Some("acme"), None).await.unwrap().cancelled, 0);
    }
}

#[tokio::test]
async fn an_overtaken_writer_changes_nothing() {
    for (kind, ledger, _raw) in both().await {
        let jobs = submit(&ledger, &[job("q1", "/v/a.mp4", 0)]).await;
        let late = claim_for(&ledger, "w1", 1, Duration::ZERO).await.remove(0).lease;
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert_eq!(ledger.expire().await.unwrap().requeued, 1);
        let now = claim(&ledger, "w2", 1).await.remove(0);
        assert_eq!(ledger.heartbeat(&[&late, &now.lease], LEASE).await.unwrap(), jobs, "{kind}");
        assert!(ledger.checkpoint(&late, &round(0)).await.unwrap_err().is_stale());
        assert!(ledger.rest_on(&late, "x").await.unwrap_err().is_stale());
        assert!(answer(&ledger, late, spec("q1", "/v/a.mp4")).await.unwrap_err().is_stale());
        ledger.checkpoint(&now.lease, &round(0)).await.unwrap();
        assert_eq!(ledger.cancel(jobs[0]).await.unwrap(), JobStatus::Cancelled);
        assert_eq!(ledger.heartbeat(&[&now.lease], LEASE).await.unwrap(), jobs);
        assert!(ledger.put_back(now.lease, "x", LEASE).await.unwrap_err().is_stale());
        assert!(ledger.answer(jobs[0]).await.unwrap().is_none());
        assert_eq!(ledger.retry(jobs[0]).await.unwrap(), JobStatus::Queued);
        let third = claim(&ledger, "w3", 1).await.remove(0);
        assert_eq!(third.rounds, [round(0)], "{kind}: committed rounds stay");
        assert!(
            ledger.rest_on(&third.lease, "models 1").await.unwrap().is_some(),
            "they rested on something unknown"
        );
        assert!(ledger.rounds(jobs[0]).await.unwrap().is_empty());
        assert_eq!(ledger.rest_on(&third.lease, "models 1").await.unwrap(), None);
    }
}

#[tokio::test]
async fn rounds_rest_on_one_thing() {
    for (kind, ledger, _raw) in both().await {
        let job = submit(&ledger, &[job("q1", "/v/a.mp4", 0)]).await[0];
        let first = claim(&ledger, "w1", 1).await.remove(0).lease;
        // Without rounds there is nothing to drop.
        for basis in ["models 1", "models 2"] {
            assert_eq!(ledger.rest_on(&first, basis).await.unwrap(), None, "{kind}");
        }
        ledger.checkpoint(&first, &round(0)).await.unwrap();
        ledger.checkpoint(&first, &round(1)).await.unwrap();
        ledger.release(first).await.unwrap();

        let second = claim(&ledger, "w2", 1).await.remove(0).lease;
        assert_eq!(ledger.rest_on(&second, "models 2").await.unwrap(), None, "{kind}");
        assert_eq!(ledger.rounds(job).await.unwrap(), [round(0), round(1)], "{kind}: the same goes on");
        ledger.release(second).await.unwrap();

        let third = claim(&ledger, "w3", 1).await.remove(0).lease;
        let earlier = ledger.rest_on(&third, "models 3").await.unwrap();
        assert_eq!(earlier.as_deref(), Some("models 2"), "{kind}");
        assert!(ledger.rounds(job).await.unwrap().is_empty(), "{kind}");
        let gap = ledger.checkpoint(&third, &round(2)).await.unwrap_err();
        assert!(matches!(gap, StoreError::Gap { committed: 0, .. }), "{kind}: {gap}");
        ledger.checkpoint(&third, &round(0)).await.unwrap();
        assert_eq!(ledger.rest_on(&third, "models 3").await.unwrap(), None, "{kind}");
        assert_eq!(ledger.rounds(job).await.unwrap(), [round(0)], "{kind}");
    }
}

#[tokio::test]
async fn a_heartbeat_keeps_a_lease() {
    for (_, ledger, _raw) in both().await {
        submit(&ledger, &[job("q1", "/v/a.mp4", 0)]).await;
        let claimed = claim_for(&ledger, "w1", 1, Duration::ZERO).await.remove(0);
        assert!(ledger.heartbeat(&[&claimed.lease], LEASE).await.unwrap().is_empty());
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert_eq!(ledger.expire().await.unwrap(), Default::default());
        ledger.checkpoint(&claimed.lease, &round(0)).await.unwrap();
        ledger.release(claimed.lease).await.unwrap();
        assert_eq!(ledger.counts(None).await.unwrap().queued, 1);
    }
}

#[tokio::test]
async fn a_suspect_runs_alone_in_its_worker_and_only_then_its_deaths_condemn_it() {
    for (kind, ledger, _raw) in both().await {
        submit(
            &ledger,
            &[job("poison", "/v/a.mp4", 9), job("good", "/v/a.mp4", 0), job("more", "/v/b.mp4", 0)],
        )
        .await;
        for _ in 0..2 {
            assert_eq!(die_with(&ledger, "w1").await, ["poison"], "{kind}");
        }
        // A worker that runs another job does not get it, even if nothing else is left.
        assert_eq!(ids(&claim(&ledger, "w2", 1).await), ["good"], "{kind}");
        let more = claim(&ledger, "w2", 1).await;
        assert_eq!(ids(&more), ["more"]);
        assert!(claim(&ledger, "w2", 1).await.is_empty());
        // An idle one does, and gets nothing else meanwhile.
        assert_eq!(ids(&claim(&ledger, "w3", 3).await), ["poison"], "{kind}");
        ledger.release(more.into_iter().next().unwrap().lease).await.unwrap();
        assert!(claim(&ledger, "w3", 1).await.is_empty());
        assert_eq!(ids(&claim(&ledger, "w4", 1).await), ["more"]);
        // It dies alone three times.
        let poison = ledger.find_job("poison", None).await.unwrap();
        ledger.cancel(poison.id).await.unwrap();
        ledger.retry(poison.id).await.unwrap();
        for deaths in 1..=5 {
            assert_eq!(ledger.job(poison.id).await.unwrap().status, JobStatus::Queued, "{kind} {deaths}");
            assert_eq!(die_with(&ledger, "w5").await, ["poison"]);
        }
        let poison = ledger.job(poison.id).await.unwrap();
        assert_eq!(poison.status, JobStatus::Failed);
        assert!(poison.error.unwrap().contains("died 5 times"));
        assert_eq!(ledger.find_job("good", None).await.unwrap().crashes, 0);
    }
}

#[tokio::test]
async fn a_death_after_a_round_counts_against_nobody() {
    for (_, ledger, _raw) in both().await {
        let jobs = submit(&ledger, &[job("long", "/v/a.mp4", 0)]).await;
        for no in 0..7 {
            let claimed = claim_for(&ledger, "w", 1, Duration::ZERO).await.remove(0);
            assert_eq!(claimed.rounds.len(), no as usize);
            ledger.checkpoint(&claimed.lease, &round(no)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(3)).await;
            assert_eq!(ledger.expire().await.unwrap().requeued, 1);
        }
        assert_eq!(ledger.job(jobs[0]).await.unwrap().crashes, 0);
    }
}

#[tokio::test]
async fn a_job_that_was_put_back_waits_and_a_round_forgets_its_faults() {
    for (kind, ledger, _raw) in both().await {
        let jobs = submit(&ledger, &[job("q1", "/v/a.mp4", 0)]).await;
        for tries in 1..=2 {
            let lease = claim(&ledger, "w", 1).await.remove(0).lease;
            ledger.put_back(lease, "503 slow down", Duration::from_millis(150)).await.unwrap();
            let row = ledger.job(jobs[0]).await.unwrap();
            assert_eq!(
                (row.status, row.tries, row.error.as_deref()),
                (JobStatus::Queued, tries, Some("503 slow down"))
            );
            assert!(claim(&ledger, "w", 1).await.is_empty(), "{kind}");
            assert_eq!(ledger.waiting(Duration::ZERO).await.unwrap(), 0);
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(ledger.waiting(Duration::ZERO).await.unwrap(), 1, "{kind}");
            assert_eq!(ledger.waiting(LEASE).await.unwrap(), 0);
        }
        let lease = claim(&ledger, "w", 1).await.remove(0).lease;
        ledger.checkpoint(&lease, &round(0)).await.unwrap();
        assert_eq!(ledger.job(jobs[0]).await.unwrap().tries, 0);
        ledger.release(lease).await.unwrap();
        assert_eq!(ledger.job(jobs[0]).await.unwrap().tries, 0);
        let again = claim(&ledger, "w", 1).await.remove(0);
        assert_eq!(again.job.tries, 0);
        ledger.checkpoint(&again.lease, &round(1)).await.unwrap();
        ledger.put_back(again.lease, "503", Duration::ZERO).await.unwrap();
        assert_eq!(ledger.job(jobs[0]).await.unwrap().tries, 1, "{kind}: the first fault since the round");
    }
}

#[tokio::test]
async fn a_deadline_ends_a_job_wherever_it_stands() {
    for (kind, ledger, _raw) in both().await {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        let due = |id: &str, at: i64| NewJob { deadline_ms: Some(at), ..job(id, "/v/a.mp4", 0) };
        let jobs =
            submit(&ledger, &[due("past", now - 1000), due("soon", now + 400), due("far", now + 600_000)])
                .await;
        let claimed = claim(&ledger, "w", 3).await;
        assert_eq!(ids(&claimed), ["soon", "far"], "{kind}: what is past is not claimed");
        assert_eq!(ledger.expire().await.unwrap().late, 1);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(ledger.expire().await.unwrap().late, 1);
        assert!(ledger.checkpoint(&claimed[0].lease, &round(0)).await.unwrap_err().is_stale());
        ledger.checkpoint(&claimed[1].lease, &round(0)).await.unwrap();
        for past in &jobs[..2] {
            let row = ledger.job(*past).await.unwrap();
            assert_eq!(row.status, JobStatus::Failed);
            assert!(row.error.unwrap().contains("deadline"));
        }
        assert_eq!(ledger.retry(jobs[0]).await.unwrap(), JobStatus::Queued);
        assert_eq!(ledger.job(jobs[0]).await.unwrap().deadline_ms, None);
    }
}

#[tokio::test]
async fn lists_come_in_pages_and_filtered() {
    for (kind, ledger, _raw) in both().await {
        let jobs: Vec<NewJob> =
            (0..5).map(|n| job(&n.to_string(), &format!("/v/{}.mp4", n % 2), 0)).collect();
        submit(&ledger, &jobs).await;
        ledger.submit("other", &[spec("x", "/v/0.mp4")]).await.unwrap();
        let claimed = claim(&ledger, "w", 1).await.remove(0);
        answer(&ledger, claimed.lease, claimed.job.spec).await.unwrap();
        let claimed = claim(&ledger, "w", 1).await.remove(0);
        ledger.fail(claimed.lease, "404", true).await.unwrap();

        let of_b = JobFilter { tenant: Some(DEFAULT_TENANT), batch: Some("b"), ..JobFilter::default() };
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = ledger.jobs(&of_b, after, 2).await.unwrap();
            seen.extend(page.rows.iter().map(|job| job.spec.id.clone()));
            let Some(next) = page.next else { break };
            after = Some(next.to_string().parse().unwrap());
        }
        assert_eq!(seen, ["0", "1", "2", "3", "4"], "{kind}");
        let status = |status| JobFilter { status: Some(status), ..of_b };
        assert_eq!(ledger.jobs(&status(JobStatus::Queued), None, 9).await.unwrap().rows.len(), 3);
        assert_eq!(
            ledger.jobs(&JobFilter { video: Some("/v/1.mp4"), ..of_b }, None, 9).await.unwrap().rows.len(),
            2
        );
        let answers = ledger.answers_of(&of_b, None, 9).await.unwrap().rows;
        assert_eq!((answers.len(), answers[0].job.spec.id.as_str()), (1, "0"));
        let failures = ledger.failures_of(&of_b, None, 9).await.unwrap().rows;
        assert_eq!((failures.len(), failures[0].permanent), (1, true));
        let counts = Counts { queued: 3, answered: 1, failed: 1, ..Counts::default() };
        assert_eq!(ledger.counts_of(None, Some("b")).await.unwrap(), counts);
        assert_eq!(ledger.retry_failed(DEFAULT_TENANT, "b").await.unwrap(), 1);
        assert_eq!(ledger.counts_of(None, Some("b")).await.unwrap().queued, 4);
    }
}

#[tokio::test]
async fn a_batch_is_told_once_it_has_ended() {
    for (kind, ledger, _raw) in both().await {
        let mut batch = Batch {
            tenant: DEFAULT_TENANT.into(),
            name: "b".into(),
            bad_lines: 2,
            results: Some("s3://bucket/results/".into()),
            webhook: Some(Webhook { url: "https://h/hook".into(), secret: "s".into() }),
            ..Batch::default()
        };
        ledger.put_batch(&batch).await.unwrap();
        let bad = |line| BadLine { line, error: format!("line {line} is no object") };
        ledger.put_bad_lines(DEFAULT_TENANT, "b", &[bad(7), bad(3)]).await.unwrap();
        ledger.put_bad_lines(DEFAULT_TENANT, "b", &[bad(7)]).await.unwrap();
        assert_eq!(ledger.bad_lines(DEFAULT_TENANT, "b", None, 9).await.unwrap().rows, [bad(3), bad(7)]);
        submit(&ledger, &[job("q1", "/v/a.mp4", 0)]).await;
        batch.sealed = true;
        ledger.put_batch(&batch).await.unwrap();
        assert!(ledger.batches_to_tell(9).await.unwrap().is_empty(), "{kind}: a job waits");
        let claimed = claim(&ledger, "w", 1).await.remove(0);
        assert!(ledger.batches_to_tell(9).await.unwrap().is_empty(), "{kind}: a job runs");
        answer(&ledger, claimed.lease, claimed.job.spec).await.unwrap();

        let told = ledger.batches_to_tell(9).await.unwrap();
        assert_eq!(told.len(), 1, "{kind}");
        assert!(told[0].created_ms > 0 && told[0].webhook == batch.webhook && told[0].bad_lines == 2);
        assert!(ledger.batches_to_tell(9).await.unwrap().is_empty(), "{kind}: one teller at a time");
        ledger.put_off(DEFAULT_TENANT, "b", "503", Duration::ZERO).await.unwrap();
        assert_eq!(ledger.batches_to_tell(9).await.unwrap()[0].tries, 1);
        ledger.mark_exported(DEFAULT_TENANT, "b").await.unwrap();
        let due = ledger.batches_to_tell(9).await.unwrap();
        assert!(due[0].exported_ms.is_some() && due[0].tries == 0, "{kind}: the webhook is still due");
        ledger.mark_told(DEFAULT_TENANT, "b").await.unwrap();
        assert!(ledger.batches_to_tell(9).await.unwrap().is_empty());
        let row = ledger.batch(DEFAULT_TENANT, "b").await.unwrap().unwrap();
        assert!(row.told_ms.is_some());
        assert_eq!(ledger.batches(DEFAULT_TENANT, None, 9).await.unwrap().rows, [row]);
        assert!(ledger.batches("other", None, 9).await.unwrap().rows.is_empty());
    }
}

#[tokio::test]
async fn nul_in_a_models_output_is_kept_or_replaced() {
    for (kind, ledger, _raw) in both().await {
        let jobs = submit(&ledger, &[job("q1", "/v/a.mp4", 0)]).await;
        let claimed = claim(&ledger, "w", 1).await.remove(0);
        let mut round = round(0);
        round.turns[0].text = "a\0b \\u0000 \u{1}".into();
        ledger.checkpoint(&claimed.lease, &round).await.unwrap();
        ledger.fail(claimed.lease, "bad \0 output", false).await.unwrap();
        let nul = if kind == "sqlite" { "\0" } else { "\u{fffd}" };
        let read = &ledger.rounds(jobs[0]).await.unwrap()[0].turns[0].text;
        assert_eq!(*read, format!("a{nul}b \\u0000 \u{1}"), "{kind}");
        assert_eq!(ledger.job(jobs[0]).await.unwrap().error.unwrap(), format!("bad {nul} output"));
    }
}

#[tokio::test]
async fn many_workers_at_once_give_each_job_to_one() {
    for (kind, ledger, _raw) in both().await {
        let jobs: Vec<NewJob> =
            (0..120).map(|n| job(&n.to_string(), &format!("/v/{}.mp4", n % 17), n % 3)).collect();
        submit(&ledger, &jobs).await;
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..8 {
            let ledger = ledger.clone();
            workers.spawn(async move {
                let name = format!("w{worker}");
                let mut done = Vec::new();
                loop {
                    let claimed = claim(&ledger, &name, 1 + worker % 3).await;
                    if claimed.is_empty() {
                        return done;
                    }
                    for claimed in claimed {
                        assert_eq!(claimed.lease.epoch(), 1);
                        ledger.checkpoint(&claimed.lease, &round(0)).await.unwrap();
                        done.push(claimed.job.spec.id.clone());
                        answer(&ledger, claimed.lease, claimed.job.spec).await.unwrap();
                    }
                }
            });
        }
        let mut done: Vec<String> = workers.join_all().await.into_iter().flatten().collect();
        done.sort();
        done.dedup();
        assert_eq!(done.len(), 120, "{kind}");
        assert_eq!(
            ledger.counts(None).await.unwrap(),
            Counts { answered: 120, ..Counts::default() },
            "{kind}"
        );
    }
}

#[tokio::test]
async fn the_same_jobs_submitted_by_many_at_once_are_there_once() {
    for (kind, ledger, _raw) in both().await {
        let jobs: Vec<NewJob> = (0..50).map(|n| job(&n.to_string(), "/v/a.mp4", 0)).collect();
        let mut submitters = tokio::task::JoinSet::new();
        for turn in 0..8 {
            let (ledger, mut jobs) = (ledger.clone(), jobs.clone());
            jobs.rotate_left(turn * 6);
            submitters.spawn(async move { ledger.submit_jobs(DEFAULT_TENANT, "b", &jobs).await.unwrap() });
        }
        let all = submitters.join_all().await;
        let new = all.iter().flatten().filter(|submission| matches!(submission, Submission::New(_))).count();
        assert_eq!((new, all.iter().flatten().count()), (50, 400), "{kind}");
        assert_eq!(ledger.counts(None).await.unwrap().queued, 50, "{kind}");
    }
}

#[tokio::test]
async fn a_ledger_on_a_server_must_be_migrated_by_this_program() {
    let url = crate::ledgers::empty_database().await;
    let options = LedgerOptions::default();
    let error = Ledger::connect(&url, &options).await.unwrap_err();
    assert!(matches!(error, StoreError::NotMigrated { found: 0, .. }), "{error}");
    assert!(error.to_string().contains("spectemp migrate"));
    // Several at once wait for each other.
    let (options, other) = (MigrateOptions::default(), MigrateOptions::default());
    let (one, two) = tokio::join!(migrate(&url, &options), migrate(&url, &other));
    let to = one.unwrap().to;
    assert_eq!(two.unwrap().to, to);
    let again = migrate(&url, &options).await.unwrap();
    assert_eq!((again.from, again.to), (Some(to), to));
    let raw = crate::ledgers::raw(&url);
    raw.execute(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'later', true, '', 0)",
    )
    .await;
    let error = Ledger::connect(&url, &LedgerOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 9999, .. }), "{error}");
    assert!(matches!(migrate(&url, &options).await, Err(StoreError::Newer { .. })));
    let error = Ledger::connect("mysql://root:secret@h/x", &LedgerOptions::default()).await.unwrap_err();
    assert!(!error.to_string().contains("secret") && error.to_string().contains("postgres://"), "{error}");
}
