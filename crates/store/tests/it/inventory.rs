//! Indexes that read an S3 Inventory, over a real S3 server and on both databases.

use std::{
    collections::HashSet,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use flate2::{Compression, write::GzEncoder};
use parquet::{arrow::ArrowWriter, basic, file::properties::WriterProperties};
use spectemp_store::{IndexFigures, IndexSpec, ListingOptions, dry_run, listing};

use crate::{
    common::uri,
    index::{TENANT, ids, index_spec, list},
    ledgers::both,
    s3_server::S3Server,
};

fn spec(inventory: &str) -> IndexSpec {
    IndexSpec { inventory: Some(uri(inventory)), ..index_spec("s3://bucket/in") }
}

/// As S3 writes it; the schema is the one of CSV.
fn manifest(format: &str, bucket: &str, files: &[&str]) -> String {
    let files: Vec<_> =
        files.iter().map(|key| serde_json::json!({"key": key, "size": 1, "MD5checksum": "x"})).collect();
    serde_json::json!({
        "sourceBucket": bucket, "destinationBucket": "arn:aws:s3:::bucket", "version": "2016-11-30",
        "fileFormat": format, "files": files,
        "fileSchema": "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass",
    })
    .to_string()
}

#[tokio::test]
async fn an_inventory_is_read_in_place_of_a_listing() {
    let server = S3Server::start().await;
    let gz = |rows: &[String]| {
        let mut file = GzEncoder::new(Vec::new(), Compression::fast());
        file.write_all(rows.join("\n").as_bytes()).unwrap();
        file.finish().unwrap()
    };
    let row = |n: u32, latest: bool| {
        format!(
            "\"bucket\",\"in/a+b/{n}.mp4\",\"v\",\"{latest}\",\"false\",\"7\",\"2026-03-01T00:00:00.000Z\",\"e{n}\",\"STANDARD\""
        )
    };
    let rows: Vec<String> = (0..2500).map(|n| row(n, true)).collect();
    server.put("inv/data/1.csv.gz", &gz(&rows));
    server.put("inv/data/2.csv.gz", &gz(&[row(9000, false), row(9001, true)]));
    let both_files = ["inv/data/1.csv.gz", "inv/data/2.csv.gz"];
    server.put(
        "inv/2026-02-28T01-00Z/manifest.json",
        manifest("CSV", "bucket", &["inv/data/gone.csv.gz"]).as_bytes(),
    );
    server.put("inv/2026-03-01T01-00Z/manifest.json", manifest("CSV", "bucket", &both_files).as_bytes());
    // A report that is being written.
    server.put("inv/2026-03-02T01-00Z/manifest.checksum", b"x");
    server.put("inv/orc/manifest.json", manifest("ORC", "bucket", &both_files).as_bytes());
    server.put("inv/other/manifest.json", manifest("CSV", "other", &both_files).as_bytes());
    let locations = server.locations();
    for (name, ledger, _kept) in both().await {
        ledger.create_index(TENANT, "inv", &spec("s3://bucket/inv/")).await.unwrap();
        let figures = list(&ledger, &locations, "inv").await;
        assert_eq!((figures.objects, figures.new, figures.jobs), (2501, 2501, 5002), "{name}");
        assert!(ids(&ledger).await.iter().any(|id| id.starts_with("who@a b/9001.mp4#")));
        let again = list(&ledger, &locations, "inv").await;
        assert_eq!((again.objects, again.new), (2501, 0));
        for (inventory, says) in [
            ("s3://bucket/inv/orc/manifest.json", "set the report to CSV or Parquet"),
            ("s3://bucket/inv/other/manifest.json", "about the bucket"),
            ("s3://bucket/in/", "no folder like"),
        ] {
            let refused = dry_run(None, &locations, &spec(inventory), None, &ListingOptions::default())
                .await
                .unwrap_err();
            assert!(refused.to_string().contains(says), "{refused}");
        }
    }
}

/// One row of a report: a key, whether it is the latest version, and whether it is a delete marker.
struct Object<'a>(&'a str, bool, bool);

/// A file of S3's columns, in row groups of 1000 rows; `without` leaves one out.
fn parquet(objects: &[Object<'_>], compression: basic::Compression, without: &str) -> Vec<u8> {
    let texts = |of: &dyn Fn(usize, &str) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(objects.iter().enumerate().map(|(n, Object(key, ..))| of(n, key))))
    };
    let flags = |of: fn(&Object<'_>) -> bool| -> ArrayRef {
        Arc::new(BooleanArray::from_iter(objects.iter().map(|object| Some(of(object)))))
    };
    let times = TimestampMillisecondArray::from_iter(objects.iter().map(|_| Some(1_772_323_200_000)));
    // A delete marker has neither size nor ETag.
    let sizes = Int64Array::from_iter(objects.iter().map(|Object(_, _, deleted)| (!deleted).then_some(7)));
    let columns: [(&str, ArrayRef, bool); 9] = [
        ("bucket", texts(&|_, _| Some("bucket".to_owned())), false),
        ("key", texts(&|_, key| Some(key.to_owned())), false),
        ("version_id", texts(&|n, _| Some(format!("v{n}"))), true),
        ("is_latest", flags(|Object(_, latest, _)| *latest), true),
        ("is_delete_marker", flags(|Object(_, _, deleted)| *deleted), true),
        ("size", Arc::new(sizes), true),
        ("last_modified_date", Arc::new(times.with_timezone("UTC")), true),
        ("e_tag", texts(&|n, _| (!objects[n].2).then(|| format!("e{n}"))), true),
        ("storage_class", texts(&|_, _| Some("STANDARD".to_owned())), true),
    ];
    let columns = columns.into_iter().filter(|(name, ..)| *name != without);
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(1000))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test]
async fn an_inventory_in_parquet_is_read() {
    let server = S3Server::start().await;
    let keys: Vec<String> = (0..2500).map(|n| format!("in/a b/{n}.mp4")).collect();
    let many: Vec<Object<'_>> = keys.iter().map(|key| Object(key, true, false)).collect();
    let odd = [
        // Keys are written as they are: this one holds a plus, a percent sign and digits.
        Object("in/x+y%20ü.mp4", true, false),
        Object("in/old.mp4", false, false),
        Object("in/deleted.mp4", true, true),
        Object("other/a.mp4", true, false),
    ];
    server.put("inv/data/1.parquet", &parquet(&many, basic::Compression::SNAPPY, ""));
    server.put("inv/data/2.parquet", &parquet(&odd, basic::Compression::GZIP(Default::default()), ""));
    let lean = [Object("in/lean.mp4", true, false)];
    server.put("inv/data/3.parquet", &parquet(&lean, basic::Compression::UNCOMPRESSED, "is_latest"));
    let files = ["inv/data/1.parquet", "inv/data/2.parquet", "inv/data/3.parquet"];
    server.put("inv/2026-03-01T01-00Z/manifest.json", manifest("Parquet", "bucket", &files).as_bytes());
    let locations = server.locations();
    for (name, ledger, _kept) in both().await {
        ledger.create_index(TENANT, "inv", &spec("s3://bucket/inv/")).await.unwrap();
        let figures = list(&ledger, &locations, "inv").await;
        assert_eq!((figures.objects, figures.new, figures.jobs), (2502, 2502, 5004), "{name}");
        assert_eq!(figures.bytes, 2502 * 7);
        let ids = ids(&ledger).await;
        for key in ["who@a b/0.mp4#", "who@a b/2499.mp4#", "what@x+y%20ü.mp4#", "who@lean.mp4#"] {
            assert_eq!(ids.iter().filter(|id| id.starts_with(key)).count(), 1, "{name}: {key}");
        }
        let again = list(&ledger, &locations, "inv").await;
        assert_eq!((again.objects, again.new), (2502, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_parquet_goes_on_behind_the_rows_that_are_done() {
    let server = S3Server::start().await;
    let keys: Vec<String> = (0..5500).map(|n| format!("in/{n:05}.mp4")).collect();
    // An old version in front, so that pages do not end where row groups do.
    let mut objects = vec![Object("in/00000.mp4", false, false)];
    objects.extend(keys.iter().map(|key| Object(key, true, false)));
    server.put("inv/1.parquet", &parquet(&objects, basic::Compression::SNAPPY, ""));
    server.put("inv/manifest.json", manifest("Parquet", "bucket", &["inv/1.parquet"]).as_bytes());
    let locations = server.locations();
    for (name, ledger, raw) in both().await {
        let spec = spec("s3://bucket/inv/manifest.json");
        let spec = IndexSpec { questions: spec.questions[..1].to_vec(), ..spec };
        let id = ledger.create_index(TENANT, "i", &spec).await.unwrap().id;
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
        assert!(index.figures.listed >= 3000 && index.figures.listed < 5500, "{name}: {index:?}");
        raw.execute("update ledger_indexes set held_until = 1").await;
        let figures = list(&ledger, &locations, "i").await;
        assert_eq!((figures.listed, figures.new, figures.jobs), (5500, 5500, 5500), "{name}");
        let ids = ids(&ledger).await;
        assert_eq!((ids.len(), ids.iter().collect::<HashSet<_>>().len()), (5500, 5500), "{name}");
    }
}

#[tokio::test]
async fn a_file_in_parquet_that_cannot_be_read_is_named() {
    let server = S3Server::start().await;
    let object = [Object("in/a.mp4", true, false)];
    let plain = |without| parquet(&object, basic::Compression::SNAPPY, without);
    let whole = plain("");
    let mut broken = whole.clone();
    // The first page of the key's column; the footer is whole.
    broken[4..200].fill(0xff);
    let files: [(&str, &[u8], &str); 5] = [
        ("size", &plain("size"), "no column size"),
        ("key", &plain("key"), "no column key"),
        ("text", b"Bucket,Key,Size", "cannot be read back"),
        ("cut", &whole[..whole.len() - 10], "cannot be read back"),
        ("broken", &broken, "cannot be read back"),
    ];
    for (name, bytes, _) in files {
        let key = format!("inv/{name}.parquet");
        server.put(&key, bytes);
        server.put(&format!("inv/{name}/manifest.json"), manifest("Parquet", "bucket", &[&key]).as_bytes());
    }
    let locations = server.locations();
    for (name, _, says) in files {
        let spec = spec(&format!("s3://bucket/inv/{name}/manifest.json"));
        let failed = dry_run(None, &locations, &spec, None, &ListingOptions::default()).await.unwrap_err();
        let failed = failed.to_string();
        assert!(failed.contains(says) && failed.contains(&format!("inv/{name}.parquet")), "{name}: {failed}");
    }
}
