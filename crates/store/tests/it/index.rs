//! Indexes over a real S3 server, on both databases.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
};

use spectemp_store::{
    IndexFigures, IndexSpec, JobFilter, Ledger, Listed, ListingOptions, Locations, RestoreTier, StoreError,
    dry_run, listing, read_questions,
};
use spectemp_types::PlanDefaults;

use crate::{
    common::uri,
    ledgers::both,
    s3_server::{Restoring, S3Server},
};

pub(crate) const TENANT: &str = "acme";

pub(crate) fn index_spec(prefix: &str) -> IndexSpec {
    let questions =
        "{\"id\":\"what\",\"question\":\"What happens?\"}\n{\"id\":\"who\",\"question\":\"Who is it?\"}";
    IndexSpec {
        prefix: uri(prefix),
        include: vec!["*.mp4".into()],
        exclude: vec!["tmp/*".into()],
        questions: read_questions(questions, &PlanDefaults { plan: "demo", set: &[] }).unwrap(),
        schedule: None,
        restore_days: None,
        restore_tier: RestoreTier::Bulk,
        inventory: None,
        results: None,
    }
}

pub(crate) async fn list(ledger: &Ledger, locations: &Locations, name: &str) -> IndexFigures {
    let index = ledger.index(TENANT, name).await.unwrap();
    match listing(ledger, locations, index.id, &ListingOptions::default(), &|_| ()).await.unwrap() {
        Listed::Done(figures) => figures,
        Listed::Held => panic!("held"),
    }
}

pub(crate) async fn ids(ledger: &Ledger) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let filter = JobFilter { tenant: Some(TENANT), ..JobFilter::default() };
        let page = ledger.jobs(&filter, after, 5000).await.unwrap();
        ids.extend(page.rows.into_iter().map(|job| job.spec.id));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_objects_become_jobs_once() {
    let server = S3Server::start().await;
    for n in 0..10_000 {
        server.put(&format!("in/cam{:02}/{n:05}.mp4", n % 20), n.to_string().as_bytes());
    }
    server.put("in/notes.txt", b"x");
    server.put("in/tmp/a.mp4", b"x");
    server.put("input/a.mp4", b"x");
    let locations = server.locations();
    for (name, ledger, _kept) in both().await {
        let spec = index_spec("s3://bucket/in");
        let plan = dry_run(None, &locations, &spec, None, &ListingOptions::default()).await.unwrap();
        ledger.create_index(TENANT, "cams", &spec).await.unwrap();
        let pages = AtomicU64::new(0);
        let id = ledger.index(TENANT, "cams").await.unwrap().id;
        let told = |figures: &IndexFigures| {
            pages.fetch_add(1, Ordering::Relaxed);
            assert!(figures.listed <= 1000, "a page at a time");
        };
        let listed = listing(&ledger, &locations, id, &ListingOptions::default(), &told).await.unwrap();
        let Listed::Done(figures) = listed else { panic!("{listed:?}") };
        assert_eq!((figures.listed, figures.objects, figures.new), (10_002, 10_000, 10_000), "{name}");
        assert_eq!((figures.jobs, figures.changed, figures.skipped), (20_000, 0, 0));
        assert_eq!((plan.figures, plan.bytes_to_ask), (figures, figures.bytes), "as the dry run said");
        let index = ledger.index(TENANT, "cams").await.unwrap();
        assert!(index.ranges > 8 && index.ranges_done == index.ranges, "{index:?}");
        assert!(!index.listing && index.ended_ms.is_some() && index.run == 1);
        let counts = ledger.counts_of(Some(TENANT), Some("index:cams")).await.unwrap();
        assert_eq!(counts.queued, 20_000);

        let again = list(&ledger, &locations, "cams").await;
        assert_eq!((again.objects, again.new, again.jobs), (10_000, 0, 0), "{name}: nothing is new");
        server.put("in/cam03/00003.mp4", name.as_bytes());
        server.put(&format!("in/cam99/{name}.mp4"), b"new");
        let third = list(&ledger, &locations, "cams").await;
        assert_eq!((third.new, third.changed, third.jobs), (1, 1, 4), "{name}");
        let ids = ids(&ledger).await;
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 20_004);
        let changed = ids.iter().filter(|id| id.starts_with("what@cam03/00003.mp4#")).count();
        assert_eq!(changed, 2, "another version is another job, the old one stays");
        server.remove(&format!("in/cam99/{name}.mp4"));
        server.put("in/cam03/00003.mp4", b"3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_listing_goes_on() {
    let server = S3Server::start().await;
    // One folder: one range of six pages.
    for n in 0..5500 {
        server.put(&format!("in/{n:05}.mp4"), b"x");
    }
    let locations = server.locations();
    for (name, ledger, raw) in both().await {
        let spec = IndexSpec {
            questions: index_spec("s3://bucket/in").questions[..1].to_vec(),
            ..index_spec("s3://bucket/in")
        };
        let id = ledger.create_index(TENANT, "i", &spec).await.unwrap().id;
        // The process dies while it writes the third page: its future is dropped at whatever point it is.
        let third = tokio::sync::Notify::new();
        let pages = AtomicU64::new(0);
        let told = |_: &IndexFigures| {
            if pages.fetch_add(1, Ordering::Relaxed) == 2 {
                third.notify_one();
            }
        };
        let options = ListingOptions::default();
        tokio::select! {
            done = listing(&ledger, &locations, id, &options, &told) => panic!("{done:?}"),
            () = third.notified() => {}
        }
        let index = ledger.index_by_id(id).await.unwrap();
        assert!(index.listing && index.figures.listed >= 3000 && index.figures.listed < 5500, "{index:?}");
        // Its hold has not lapsed yet.
        let held = listing(&ledger, &locations, id, &ListingOptions::default(), &|_| ()).await.unwrap();
        assert_eq!(held, Listed::Held, "{name}");
        assert!(ledger.due_indexes().await.unwrap().is_empty());
        raw.execute("update ledger_indexes set held_until = 1").await;
        assert_eq!(ledger.due_indexes().await.unwrap(), [id], "an interrupted listing is due");
        let before = server.listings();
        let figures = list(&ledger, &locations, "i").await;
        assert!(server.listings() - before <= 4, "it went on from its position");
        assert_eq!((figures.listed, figures.new, figures.jobs), (5500, 5500, 5500), "{name}");
        let ids = ids(&ledger).await;
        assert_eq!((ids.len(), ids.iter().collect::<HashSet<_>>().len()), (5500, 5500));
        assert!(ledger.due_indexes().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn archived_objects_are_restored_first() {
    for silent in [false, true] {
        let server = S3Server::start().await;
        for (key, class) in [("a", "GLACIER"), ("b", "DEEP_ARCHIVE"), ("c", "GLACIER_IR"), ("d", "STANDARD")]
        {
            server.put(&format!("in/{key}.mp4"), key.as_bytes());
            if class != "STANDARD" {
                server.archive(&format!("in/{key}.mp4"), class, Restoring::No);
            }
        }
        if silent {
            server.be_silent();
        }
        let locations = server.locations();
        for (name, ledger, _kept) in both().await {
            let plain = index_spec("s3://bucket/in/");
            ledger.create_index(TENANT, "plain", &plain).await.unwrap();
            let figures = list(&ledger, &locations, "plain").await;
            assert_eq!(
                (figures.new, figures.skipped, figures.restoring, figures.jobs),
                (2, 2, 0, 4),
                "{name}"
            );

            let restoring = IndexSpec { restore_days: Some(3), ..plain };
            let plan = dry_run(None, &locations, &restoring, None, &ListingOptions::default()).await.unwrap();
            assert_eq!(plan.figures.restoring, 2);
            ledger.create_index(TENANT, "restoring", &restoring).await.unwrap();
            for _ in 0..2 {
                let figures = list(&ledger, &locations, "restoring").await;
                assert_eq!((figures.restoring, figures.skipped), (2, 0), "{name}");
            }
            assert_eq!(server.restoring("in/a.mp4"), Restoring::Running);
            server.archive("in/a.mp4", "GLACIER", Restoring::Done);
            let figures = list(&ledger, &locations, "restoring").await;
            assert_eq!((figures.new, figures.restoring, figures.jobs), (1, 1, 2), "{name} {silent}");
            server.archive("in/a.mp4", "GLACIER", Restoring::No);
            let figures = list(&ledger, &locations, "restoring").await;
            assert_eq!((figures.new, figures.restoring), (0, 1), "an answered object is not restored again");
            server.archive("in/b.mp4", "DEEP_ARCHIVE", Restoring::No);
        }
    }
}

#[tokio::test]
async fn a_local_folder_is_indexed_too() {
    let videos = crate::common::dir();
    std::fs::create_dir_all(videos.path().join("a b#")).unwrap();
    for name in ["a b#/1%20.mp4", "2.mp4", "x.txt"] {
        std::fs::write(videos.path().join(name), name).unwrap();
    }
    let locations = Locations::default();
    for (name, ledger, _kept) in both().await {
        let spec = index_spec(videos.path().to_str().unwrap());
        ledger.create_index(TENANT, "local", &spec).await.unwrap();
        let figures = list(&ledger, &locations, "local").await;
        assert_eq!((figures.listed, figures.new, figures.jobs), (3, 2, 4), "{name}");
        let page = ledger.jobs(&JobFilter::default(), None, 10).await.unwrap();
        for job in page.rows {
            let path = job.spec.video.expose().to_owned();
            assert!(std::path::Path::new(&path).is_file(), "{path}");
        }
        assert_eq!(list(&ledger, &locations, "local").await.new, 0);
    }
}

#[tokio::test]
async fn an_index_that_failed_is_not_due_at_once() {
    let server = S3Server::start().await;
    let locations = server.locations();
    for (name, ledger, raw) in both().await {
        let index = ledger.create_index(TENANT, "i", &index_spec("s3://no-such-bucket/in")).await.unwrap();
        ledger.want_listing(index.id).await.unwrap();
        assert_eq!(ledger.due_indexes().await.unwrap(), [index.id], "{name}");
        let run = async || listing(&ledger, &locations, index.id, &ListingOptions::default(), &|_| ()).await;
        let error = run().await.unwrap_err().to_string();
        assert_eq!(ledger.index(TENANT, "i").await.unwrap().error.as_deref(), Some(error.as_str()), "{name}");
        assert_eq!(ledger.due_indexes().await.unwrap(), [], "{name}: it is left alone for a while");
        // Who asks for it does not wait, nor does who lists by hand.
        ledger.want_listing(index.id).await.unwrap();
        assert_eq!(ledger.due_indexes().await.unwrap(), [index.id], "{name}");
        run().await.unwrap_err();
        raw.execute("update ledger_indexes set held_until = held_until - 300000").await;
        assert_eq!(ledger.due_indexes().await.unwrap(), [index.id], "{name}: the pause is over");
    }
}

#[tokio::test]
async fn an_index_is_paused_resumed_scheduled_and_deleted() {
    let server = S3Server::start().await;
    server.put("in/a.mp4", b"x");
    let locations = server.locations();
    for (name, ledger, raw) in both().await {
        let spec = IndexSpec { schedule: Some("* * * * *".into()), ..index_spec("s3://bucket/in") };
        let index = ledger.create_index(TENANT, "i", &spec).await.unwrap();
        assert_eq!((index.spec.clone(), index.run), (spec.clone(), 0), "{name}");
        assert!(matches!(ledger.create_index(TENANT, "i", &spec).await, Err(StoreError::Invalid(_))));
        ledger.create_index("other", "i", &spec).await.unwrap();
        assert!(ledger.create_index(TENANT, "a/b", &spec).await.is_err());
        assert_eq!(ledger.indexes(Some(TENANT)).await.unwrap().len(), 1);
        assert_eq!(ledger.indexes(None).await.unwrap().len(), 2);

        ledger.pause_index(index.id, true).await.unwrap();
        let paused =
            listing(&ledger, &locations, index.id, &ListingOptions::default(), &|_| ()).await.unwrap();
        assert_eq!(paused, Listed::Held);
        raw.execute("update ledger_indexes set created_at = created_at - 120000").await;
        assert!(!ledger.due_indexes().await.unwrap().contains(&index.id), "a paused index is never due");
        ledger.pause_index(index.id, false).await.unwrap();
        assert!(ledger.due_indexes().await.unwrap().contains(&index.id));
        assert_eq!(list(&ledger, &locations, "i").await.jobs, 2);
        assert!(!ledger.due_indexes().await.unwrap().contains(&index.id), "not again within its minute");
        ledger.want_listing(index.id).await.unwrap();
        assert!(ledger.due_indexes().await.unwrap().contains(&index.id), "unless somebody asks for it");
        list(&ledger, &locations, "i").await;
        assert!(!ledger.due_indexes().await.unwrap().contains(&index.id));

        ledger.delete_index(index.id).await.unwrap();
        assert!(matches!(ledger.index(TENANT, "i").await, Err(StoreError::NoIndex(_))));
        assert!(matches!(ledger.delete_index(index.id).await, Err(StoreError::NoIndex(_))));
        assert_eq!(ids(&ledger).await.len(), 2, "its jobs stay");
        // Made again, it finds its jobs.
        ledger.create_index(TENANT, "i", &spec).await.unwrap();
        list(&ledger, &locations, "i").await;
        assert_eq!(ids(&ledger).await.len(), 2);
    }
}

#[tokio::test]
async fn what_stops_a_listing_is_told() {
    let server = S3Server::start().await;
    let locations = server.locations();
    for (name, ledger, _kept) in both().await {
        let id = ledger.create_index(TENANT, "i", &index_spec("s3://nowhere/in")).await.unwrap().id;
        let failed = listing(&ledger, &locations, id, &ListingOptions::default(), &|_| ()).await.unwrap_err();
        assert!(failed.to_string().contains("NoSuchBucket"), "{name}: {failed}");
        let index = ledger.index_by_id(id).await.unwrap();
        assert!(index.error.unwrap().contains("NoSuchBucket"));
        // It is not held: the next try may begin at once.
        assert!(listing(&ledger, &locations, id, &ListingOptions::default(), &|_| ()).await.is_err());
    }
}
