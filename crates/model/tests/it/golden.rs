//! Every stage against the reference implementation's tensors.

use spectemp_model::check::{CheckOptions, CheckReport, run};
use spectemp_model::config::Config;
use spectemp_model::rope::{Grid, PositionRule, PositionSettings, VisualSpan, next_position, positions};
use spectemp_model::{DTypeChoice, LoadOptions, ModelFiles};

use crate::support::{data, options};

fn check(model: &str, cases: &[&str]) -> CheckReport {
    let goldens: Vec<_> = cases.iter().map(|case| data(&format!("{model}/{case}.safetensors"))).collect();
    let files = ModelFiles::folder(data(&format!("{model}/model")));
    let options = CheckOptions { load: options(), ..CheckOptions::default() };
    let report = run(&files, &goldens, &options).expect("the checkpoint loads");
    for file in &report.files {
        eprintln!("{}: {:?}", file.file, file.error);
        for stage in &file.stages {
            eprintln!("  {:28} {:?} {} {}", stage.stage, stage.error, stage.passed, stage.note);
        }
    }
    assert!(report.passed, "some stage is over tolerance");
    report
}

/// Files in which a stage was compared, not skipped.
fn compared(report: &CheckReport, stage: &str) -> usize {
    let ran = |s: &spectemp_model::check::StageReport| s.stage == stage && s.error.is_some();
    report.files.iter().filter(|file| file.stages.iter().any(ran)).count()
}

#[test]
fn every_stage_of_the_untied_checkpoint_agrees() {
    let cases = [
        "text_only",
        "one_image",
        "three_images",
        "window_exact",
        "window_leftover",
        "multiturn",
        "video_spg1.0",
        "video_spg0.4",
        "video_spg2.0",
        "video_odd_default",
        "video_positions_4_57",
    ];
    let report = check("untied", &cases);
    for (stage, files) in [
        ("positions", 10),
        ("windows window_index", 9),
        ("windows cu_window_seqlens", 9),
        ("vision_blocks", 3),
        ("vision_embeds", 3),
        ("hidden_first", 10),
        ("hidden_last", 10),
        ("logits", 10),
        ("greedy", 10),
        ("positions video_spg2.0", 1),
    ] {
        assert_eq!(compared(&report, stage), files, "{stage}");
    }
}

#[test]
fn every_stage_of_the_tied_checkpoint_agrees() {
    let report = check("tied", &["text_only", "one_image"]);
    assert_eq!(compared(&report, "vision_embeds"), 1);
    assert_eq!(compared(&report, "greedy"), 2);
}

/// The largest error of a stage over all files.
fn largest(report: &CheckReport, stage: &str) -> f64 {
    let stages = report.files.iter().flat_map(|file| &file.stages).filter(|s| s.stage == stage);
    stages.filter_map(|stage| stage.error).fold(0.0, f64::max)
}

#[test]
fn quantised_loads_are_within_their_tolerances_and_their_vision_is_exact() {
    let cases = ["text_only", "one_image", "three_images", "multiturn", "video_spg1.0"];
    let goldens: Vec<_> = cases.iter().map(|case| data(&format!("untied/{case}.safetensors"))).collect();
    for dtype in [DTypeChoice::Q8_0, DTypeChoice::Q4K, DTypeChoice::Bf16] {
        let options = CheckOptions { load: LoadOptions { dtype, ..options() }, tolerance: None };
        let report = run(&ModelFiles::folder(data("untied/model")), &goldens, &options).expect("it loads");
        let [first, last, logits] = ["hidden_first", "hidden_last", "logits"].map(|s| largest(&report, s));
        eprintln!("{dtype}: first layer {first:.1e}, last {last:.1e}, logits {logits:.1e}");
        assert!(report.passed, "{dtype}: {:?}", report.files);
        assert!(logits > 1e-4, "{dtype}: {logits} is what f32 gives");
        if dtype.quantizes() {
            assert!(largest(&report, "vision_embeds") < 1e-4);
        }
        let greedy = report.files[0].stages.iter().find(|stage| stage.stage == "greedy").expect("compared");
        assert!(greedy.tolerance.is_none() && greedy.note.contains(dtype.name()), "{greedy:?}");
    }
    // A tolerance that is asked for holds for all stages.
    let load = LoadOptions { dtype: DTypeChoice::Q8_0, ..options() };
    let options = CheckOptions { load, tolerance: Some(1e-6) };
    let report = run(&ModelFiles::folder(data("untied/model")), &goldens[..1], &options).expect("it loads");
    assert!(!report.passed);
}

#[test]
fn a_wrong_checkpoint_fails_the_check() {
    // Same shapes, other weights: the tied checkpoint's files under the untied one's goldens differ in the head alone.
    let files = ModelFiles::folder(data("tied/model"));
    let report =
        run(&files, &[data("untied/text_only.safetensors")], &CheckOptions::default()).expect("it loads");
    assert!(!report.passed);
    let logits = report.files[0].stages.iter().find(|stage| stage.stage == "logits").expect("compared");
    assert!(!logits.passed && logits.error.is_some_and(|error| error > 1e-2));
}

#[test]
fn a_file_that_is_no_golden_fails_in_the_report() {
    let files = ModelFiles::folder(data("tied/model"));
    let goldens = [data("img0.png"), data("processor.safetensors"), "nowhere.safetensors".into()];
    let report = run(&files, &goldens, &CheckOptions::default()).expect("the checkpoint loads");
    assert!(!report.passed);
    assert!(report.files.iter().all(|file| !file.passed && file.error.is_some()), "{report:?}");
}

/// Both rules on every video case: the published one gives 4.57's positions, the newer one the golden file's own.
#[test]
fn both_position_rules_give_their_reference() {
    let config =
        Config::parse(&std::fs::read(data("untied/model/config.json")).expect("readable")).expect("parses");
    let published = candle_core::safetensors::load(
        data("untied/video_positions_4_57.safetensors"),
        &candle_core::Device::Cpu,
    )
    .expect("readable");
    for (case, seconds) in
        [("video_spg1.0", 1.0), ("video_spg0.4", 0.4), ("video_spg2.0", 2.0), ("video_odd_default", 1.0)]
    {
        let own = candle_core::safetensors::load(
            data(&format!("untied/{case}.safetensors")),
            &candle_core::Device::Cpu,
        )
        .expect("readable");
        let ids: Vec<i64> = own["input_ids"].flatten_all().and_then(|ids| ids.to_vec1()).expect("ids");
        let visual: Vec<bool> = ids.iter().map(|&id| id == i64::from(config.video_token_id)).collect();
        let span = VisualSpan { grid: Grid { t: 3, h: 4, w: 6 }, seconds_per_step: Some(seconds) };
        let of = |rule| {
            let settings =
                PositionSettings { rule, merge: 2, tokens_per_second: config.vision.tokens_per_second };
            let positions = positions(&visual, &[span], settings).expect("they fit");
            let delta = i64::from(next_position(&positions)) - positions.len() as i64;
            let rows: Vec<i64> =
                (0..3).flat_map(|axis| positions.iter().map(move |p| i64::from(p[axis]))).collect();
            (rows, vec![delta])
        };
        let wanted = |tensors: &std::collections::HashMap<String, candle_core::Tensor>, prefix: &str| {
            let values = |key: &str| -> Vec<i64> {
                tensors[&format!("{prefix}{key}")].flatten_all().and_then(|t| t.to_vec1()).expect("integers")
            };
            (values("position_ids"), values("rope_deltas"))
        };
        assert_eq!(of(PositionRule::Published), wanted(&published, &format!("{case}.")), "{case}, published");
        assert_eq!(of(PositionRule::Transformers5), wanted(&own, ""), "{case}, transformers 5");
    }
}
