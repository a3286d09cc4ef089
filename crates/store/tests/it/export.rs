//! The files of a batch.

use std::path::Path;

use arrow_array::cast::AsArray;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use spectemp_store::{
    AllowList, BadLine, BatchExport, DEFAULT_TENANT, ExportJob, ExportReport, Home, Locations, Manifest,
    ManifestPart, PartLimits, StoreError, export, export_batch, location,
};

use crate::{
    common::{answer, claim, dir, home, spec, trace, uri},
    s3_server::S3Server,
};

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn run_export(home: &Home, results: &Path, bad_lines: &[BadLine]) -> ExportReport {
    let results = uri(results.to_str().unwrap());
    export(home.ledger(), &Locations::default(), &ExportJob { batch: "b", results: &results, bad_lines })
        .await
        .unwrap()
}

#[tokio::test]
async fn three_files_in_job_order() {
    let (_dir, home) = home().await;
    let results = dir();
    let results = results.path().join("new folder/r");
    let specs: Vec<_> = (0..5).map(|n| spec(&format!("q{n}"), "/v/a b#.mp4")).collect();
    home.ledger().submit("b", &specs).await.unwrap();
    home.ledger().submit("other", &specs).await.unwrap();
    let mut claimed = claim(&home, "b", 5).await;
    let failed = claimed.remove(2);
    home.ledger().fail(failed.lease, "broken\nvideo", true).await.unwrap();
    while let Some(last) = claimed.pop() {
        answer(&home, last).await;
    }
    let bad = [BadLine { line: 7, error: "no question".into() }];
    assert_eq!(run_export(&home, &results, &bad).await, ExportReport { answers: 4, errors: 2 });

    let answers = lines(&results.join("answers.jsonl"));
    let ids: Vec<_> = answers.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["q0", "q1", "q3", "q4"]);
    assert_eq!(answers[0]["answer"], "red");
    assert_eq!(answers[0]["choice"], "A");
    assert_eq!(answers[0]["confidence"], 0.875);
    assert_eq!(answers[0]["evidence"], json!([{"start_s": 10.0, "end_s": 20.0, "frames_s": [12.0, 14.0]}]));
    assert_eq!(answers[0]["totals"]["rounds"], 2);
    assert_eq!(answers[0]["choices"], json!(["red", "blue"]));
    assert!(answers[0].get("rounds").is_none());

    let errors = lines(&results.join("errors.jsonl"));
    assert_eq!(errors[0], json!({"line": 7, "error": "no question"}));
    assert_eq!(errors[1]["id"], "q2");
    assert_eq!(errors[1]["error"], "broken\nvideo");

    let before = std::fs::read(results.join("answers.jsonl")).unwrap();
    run_export(&home, &results, &[]).await;
    assert_eq!(std::fs::read(results.join("answers.jsonl")).unwrap(), before, "the same again");
    let mut names: Vec<_> =
        std::fs::read_dir(&results).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["answers.jsonl", "answers.parquet", "errors.jsonl"], "nothing is left over");
}

#[tokio::test]
async fn the_table_has_the_columns_of_the_view() {
    let (_dir, home) = home().await;
    let results = dir();
    home.ledger().submit("b", &[spec("q0", "/v/a.mp4")]).await.unwrap();
    for answers in 0..2_usize {
        run_export(&home, results.path(), &[]).await;
        let file = std::fs::File::open(results.path().join("answers.parquet")).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let mut columns: Vec<String> =
            reader.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut of_view = home
            .ledger()
            .sql(DEFAULT_TENANT, "select * from answers", Default::default())
            .await
            .unwrap()
            .columns;
        // The object's key and whose it is mean something only where the ledger is.
        of_view.retain(|name| name != "trace" && name != "tenant");
        columns.sort();
        of_view.sort();
        assert_eq!(columns, of_view);
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), answers);
        if let Some(batch) = batches.first() {
            let text =
                |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().value(0).to_owned();
            assert_eq!(
                (text("id"), text("answer"), text("strategy")),
                ("q0".into(), "red".into(), "spectemp".into())
            );
            let frames = batch.column_by_name("frames_s").unwrap().as_list::<i32>().value(0);
            assert_eq!(frames.as_primitive::<arrow_array::types::Float64Type>().values(), &[12.0, 14.0]);
        }
        if answers == 0 {
            answer(&home, claim(&home, "b", 1).await.remove(0)).await;
        }
    }
}

#[tokio::test]
async fn many_answers_come_in_pages() {
    let (_dir, home) = home().await;
    let results = dir();
    let specs: Vec<_> = (0..1001).map(|n| spec(&format!("q{n}"), "/v/a.mp4")).collect();
    home.ledger().submit("b", &specs).await.unwrap();
    for claimed in claim(&home, "b", 2000).await {
        answer(&home, claimed).await;
    }
    assert_eq!(run_export(&home, results.path(), &[]).await.answers, 1001);
    let answers = lines(&results.path().join("answers.jsonl"));
    assert!(answers.iter().enumerate().all(|(n, line)| line["id"] == format!("q{n}")));
}

async fn bytes_at(locations: &Locations, results: &str, name: &str) -> Vec<u8> {
    let place = locations.resolve(&location::join(&uri(results), name).unwrap()).unwrap();
    place.store.get(&place.path).await.unwrap().bytes().await.unwrap().to_vec()
}

/// What the manifest says of a part is true of it; its rows' ids.
async fn check_part(locations: &Locations, results: &str, part: &ManifestPart) -> Vec<String> {
    use sha2::Digest as _;
    let bytes = bytes_at(locations, results, &part.path).await;
    assert_eq!(bytes.len() as u64, part.bytes);
    let sum: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sum, part.sha256);
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
    let mut ids = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let column = batch.column_by_name("id").unwrap().as_string::<i32>().clone();
        ids.extend(column.iter().map(|id| id.unwrap().to_owned()));
    }
    assert_eq!(ids.len() as u64, part.rows);
    ids
}

#[tokio::test]
async fn a_batch_goes_to_the_bucket_in_parts() {
    let (_dir, home) = home().await;
    let server = S3Server::start().await;
    let specs: Vec<_> = (0..25).map(|n| spec(&format!("q{n:02}"), "/v/a.mp4")).collect();
    home.ledger().submit("b", &specs).await.unwrap();
    let mut claimed = claim(&home, "b", 25).await;
    let failed = claimed.remove(3);
    home.ledger().fail(failed.lease, "broken video", true).await.unwrap();
    for claimed in claimed {
        answer(&home, claimed).await;
    }
    let bad = [BadLine { line: 9, error: "no question".into() }];
    home.ledger().put_bad_lines(DEFAULT_TENANT, "b", &bad).await.unwrap();

    let locations = server.locations().allow(AllowList::parse(["s3://bucket/results"]).unwrap());
    let results = "s3://bucket/results/run 1/";
    let job = BatchExport { tenant: DEFAULT_TENANT, batch: "b", results: &uri(results) };
    let small = PartLimits { rows: 10, ..PartLimits::default() };
    let manifest = export_batch(home.ledger(), &locations, &job, small).await.unwrap();
    let written: Manifest =
        serde_json::from_slice(&bytes_at(&locations, results, "manifest.json").await).unwrap();
    assert_eq!(written, manifest);
    let rows: Vec<u64> = manifest.answers.parts.iter().map(|part| part.rows).collect();
    assert_eq!((rows.as_slice(), manifest.answers.rows), ([10, 10, 4].as_slice(), 24));
    assert_eq!(manifest.answers.parts[2].path, "answers/part-00002.parquet");
    let mut ids = Vec::new();
    for part in &manifest.answers.parts {
        ids.extend(check_part(&locations, results, part).await);
    }
    let expected: Vec<_> = (0..25).filter(|n| *n != 3).map(|n| format!("q{n:02}")).collect();
    assert_eq!(ids, expected);
    let errors = String::from_utf8(bytes_at(&locations, results, "errors.jsonl").await).unwrap();
    assert_eq!((errors.lines().count(), manifest.errors.rows), (2, 2));
    assert!(errors.contains("no question") && errors.contains("broken video"), "{errors}");

    // The same again in one part: the others are gone, so that a reader of the folder sees no row twice.
    let again = export_batch(home.ledger(), &locations, &job, PartLimits::default()).await.unwrap();
    assert_eq!(again.answers.parts.len(), 1);
    let left = locations.resolve(&uri("s3://bucket/results/run 1/answers/part-00001.parquet")).unwrap();
    assert!(matches!(left.store.head(&left.path).await, Err(object_store::Error::NotFound { .. })));

    let other = BatchExport { results: &uri("s3://bucket/other"), ..job };
    let refused = export_batch(home.ledger(), &locations, &other, small).await.unwrap_err();
    assert!(matches!(refused, StoreError::Location(_)), "{refused}");
    let local = dir();
    let local = uri(local.path().to_str().unwrap());
    let refused =
        export_batch(home.ledger(), &locations, &BatchExport { results: &local, ..job }, small).await;
    assert!(refused.is_err(), "a local folder that is not on the list");
}

#[tokio::test]
async fn a_batch_without_answers_has_its_columns() {
    let (_dir, home) = home().await;
    let results = dir();
    let text = results.path().to_str().unwrap();
    let job = BatchExport { tenant: DEFAULT_TENANT, batch: "none", results: &uri(text) };
    let locations = Locations::default();
    let manifest = export_batch(home.ledger(), &locations, &job, PartLimits::default()).await.unwrap();
    assert_eq!((manifest.answers.rows, manifest.answers.parts.len()), (0, 1));
    assert!(check_part(&locations, text, &manifest.answers.parts[0]).await.is_empty());
}

#[tokio::test]
async fn results_of_one_machine_go_to_a_bucket_too() {
    let (_dir, home) = home().await;
    let server = S3Server::start().await;
    // Long texts of which no two are alike: more than one part of a multipart upload.
    let text = |n: u32| (0..600_u32).map(|k| blake3_hex(n * 1000 + k)).collect::<String>();
    let specs: Vec<_> = (0..400).map(|n| spec(&format!("q{n}"), "/v/a.mp4")).collect();
    home.ledger().submit("b", &specs).await.unwrap();
    for (n, claimed) in claim(&home, "b", 400).await.into_iter().enumerate() {
        let mut trace = trace(claimed.job.id, claimed.job.spec, vec![]);
        trace.answer.text = text(n as u32);
        home.finish(claimed.lease, &trace).await.unwrap();
    }
    let (locations, results) = (server.locations(), "s3://bucket/run 1#");
    let job = ExportJob { batch: "b", results: &uri(results), bad_lines: &[] };
    assert_eq!(export(home.ledger(), &locations, &job).await.unwrap().answers, 400);
    let lines = bytes_at(&locations, results, "answers.jsonl").await;
    assert!(lines.len() > 9 << 20, "more than one part");
    assert_eq!(lines.split(|byte| *byte == b'\n').count(), 401);
    let table = bytes_at(&locations, results, "answers.parquet").await;
    assert!(table.starts_with(b"PAR1") && table.ends_with(b"PAR1"));
}

fn blake3_hex(n: u32) -> String {
    blake3::hash(&n.to_le_bytes()).to_hex().to_string()
}
