//! The files of a batch.

use std::path::Path;

use arrow_array::cast::AsArray;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use spectemp_store::{BadLine, ExportJob, ExportReport, Home, Locations, export};

use crate::common::{answer, claim, dir, home, spec, uri};

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
        let mut of_view =
            home.ledger().sql("select * from answers", Default::default()).await.unwrap().columns;
        // The object's key means something only in the home.
        of_view.retain(|name| name != "trace");
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
