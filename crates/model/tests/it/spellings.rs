//! The same checkpoint in every spelling of configs and tensors computes the same; what is not supported is refused by name.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use spectemp_model::ModelFiles;
use spectemp_model::check::{CheckOptions, run};
use spectemp_model::config::Config;

use crate::support::{copy, data, json, options};

fn assert_passes(folder: &Path, model: &str) {
    let goldens =
        [data(&format!("{model}/text_only.safetensors")), data(&format!("{model}/one_image.safetensors"))];
    let options = CheckOptions { load: options(), ..CheckOptions::default() };
    let report = run(&ModelFiles::folder(folder), &goldens, &options).expect("the checkpoint loads");
    assert!(report.passed, "{report:?}");
}

/// The published form: text fields at the top, `rope_scaling`, `in_chans`.
fn flat(nested: &Value) -> Value {
    let mut flat = nested.clone();
    let root = flat.as_object_mut().expect("an object");
    let mut text = root.remove("text_config").expect("nested");
    let text = text.as_object_mut().expect("an object");
    text.remove("layer_types");
    text.remove("model_type");
    let rope = text.remove("rope_parameters").expect("nested");
    text.insert("rope_theta".into(), rope["rope_theta"].clone());
    text.insert("rope_scaling".into(), json!({"type": "mrope", "mrope_section": rope["mrope_section"]}));
    text.insert("sliding_window".into(), json!(32768));
    text.insert("use_sliding_window".into(), json!(false));
    root.append(text);
    let vision = root["vision_config"].as_object_mut().expect("an object");
    vision.remove("rope_parameters");
    let channels = vision.remove("in_channels").expect("nested");
    vision.insert("in_chans".into(), channels);
    vision.insert("model_type".into(), json!("qwen2_5_vl"));
    flat
}

fn tensors(folder: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).expect("readable")
}

fn newer_name(name: &str) -> String {
    match name.split_once('.') {
        Some(("model", rest)) => format!("model.language_model.{rest}"),
        Some(("visual", _)) => format!("model.{name}"),
        _ => name.to_owned(),
    }
}

#[test]
fn the_flat_config_is_the_nested_one() {
    for model in ["untied", "tied"] {
        let folder = copy(&data(&format!("{model}/model")));
        let path = folder.path().join("config.json");
        let nested = json(&path);
        let flat = flat(&nested);
        std::fs::write(&path, flat.to_string()).expect("writable");
        let parse = |value: &Value| Config::parse(value.to_string().as_bytes()).expect("parses");
        assert_eq!(parse(&flat), parse(&nested));
        assert_passes(folder.path(), model);
    }
}

#[test]
fn newer_tensor_names_in_shards_are_the_published_ones() {
    for model in ["untied", "tied"] {
        let folder = copy(&data(&format!("{model}/model")));
        let all = tensors(folder.path());
        std::fs::remove_file(folder.path().join("model.safetensors")).expect("there");
        let (mut shards, mut map) = ([HashMap::new(), HashMap::new()], serde_json::Map::new());
        for (number, (name, tensor)) in all.into_iter().enumerate() {
            let name = newer_name(&name);
            map.insert(name.clone(), json!(format!("model-0000{}-of-00002.safetensors", number % 2 + 1)));
            shards[number % 2].insert(name, tensor);
        }
        for (number, shard) in shards.iter().enumerate() {
            let path = folder.path().join(format!("model-0000{}-of-00002.safetensors", number + 1));
            candle_core::safetensors::save(shard, path).expect("writable");
        }
        let index = json!({"metadata": {}, "weight_map": map}).to_string();
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).expect("writable");
        assert_passes(folder.path(), model);
    }
}

#[test]
fn half_precision_files_load_as_f32() {
    let folder = copy(&data("tied/model"));
    let mut all = tensors(folder.path());
    for (number, tensor) in all.values_mut().enumerate() {
        let dtype = [candle_core::DType::BF16, candle_core::DType::F16][number % 2];
        *tensor = tensor.to_dtype(dtype).expect("converts");
    }
    candle_core::safetensors::save(&all, folder.path().join("model.safetensors")).expect("writable");
    let options = CheckOptions { load: options(), tolerance: Some(0.1) };
    let goldens = [data("tied/text_only.safetensors")];
    let report = run(&ModelFiles::folder(folder.path()), &goldens, &options).expect("loads");
    let logits = report.files[0].stages.iter().find(|stage| stage.stage == "logits").expect("compared");
    assert!(logits.passed && logits.error.is_some_and(|error| error > 1e-5), "{logits:?}");
}

#[test]
fn an_untied_checkpoint_without_a_head_and_a_tied_one_with_it() {
    let folder = copy(&data("untied/model"));
    let mut all = tensors(folder.path());
    let head = all.remove("lm_head.weight").expect("untied");
    candle_core::safetensors::save(&all, folder.path().join("model.safetensors")).expect("writable");
    let error = run(&ModelFiles::folder(folder.path()), &[], &CheckOptions::default())
        .expect_err("no head")
        .to_string();
    assert!(error.contains("lm_head.weight"), "{error}");
    // Some writers store the tied head as well; the table counts.
    let folder = copy(&data("tied/model"));
    let mut all = tensors(folder.path());
    all.insert("lm_head.weight".to_owned(), head);
    candle_core::safetensors::save(&all, folder.path().join("model.safetensors")).expect("writable");
    assert_passes(folder.path(), "tied");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let config = json(&data("untied/model/config.json"));
    let cases: &[(&[&str], Value, &str)] = &[
        (&["model_type"], json!("qwen2_vl"), "model_type qwen2_vl"),
        (&["model_type"], Value::Null, "model_type is missing"),
        (&["quantization_config"], json!({"quant_method": "awq"}), "quantization_config (awq)"),
        (&["text_config", "hidden_act"], json!("gelu"), "text_config.hidden_act gelu"),
        (&["vision_config", "hidden_act"], json!("quick_gelu"), "vision_config.hidden_act quick_gelu"),
        (&["text_config", "rope_parameters", "rope_type"], json!("yarn"), "rope_parameters.rope_type yarn"),
        (&["text_config", "rope_scaling"], json!({"type": "dynamic", "factor": 2.0}), "type dynamic"),
        (
            &["text_config", "layer_types"],
            json!(["full_attention", "sliding_attention"]),
            "sliding_attention",
        ),
        (&["text_config", "head_dim"], json!(32), "head_dim 32"),
        (&["vision_config", "in_channels"], json!(4), "in_channels 4"),
        (&["vision_config", "temporal_patch_size"], json!(1), "temporal_patch_size 1"),
        (&["vision_config", "model_type"], json!("siglip"), "vision_config.model_type siglip"),
        (&["vision_config"], Value::Null, "vision_config is missing"),
        (&["text_config", "num_attention_heads"], json!(0), "num_attention_heads"),
        (&["text_config", "num_attention_heads"], json!(7), "num_attention_heads"),
        (&["text_config", "num_key_value_heads"], json!(3), "num_key_value_heads"),
        (&["text_config", "hidden_size"], json!("64"), "hidden_size"),
        (&["text_config", "vocab_size"], json!(1_u64 << 60), "vocab_size"),
        (&["text_config", "rope_parameters", "mrope_section"], json!([2, 3, 4]), "mrope_section"),
        (&["vision_config", "out_hidden_size"], json!(128), "out_hidden_size 128"),
        (&["vision_config", "window_size"], json!(1), "window_size 1"),
    ];
    for (path, value, named) in cases {
        let mut config = config.clone();
        let (last, parents) = path.split_last().expect("a path");
        let parent = parents.iter().fold(&mut config, |value, name| &mut value[*name]);
        parent[*last] = value.clone();
        let error = Config::parse(config.to_string().as_bytes()).expect_err(named).to_string();
        assert!(error.contains("config.json") && error.contains(named), "{named}: {error}");
    }
}

#[test]
fn sliding_windows_are_refused_only_where_they_are_used() {
    let mut config = flat(&json(&data("untied/model/config.json")));
    let mut parse = |used: bool, from: u64| {
        config["use_sliding_window"] = json!(used);
        config["max_window_layers"] = json!(from);
        Config::parse(config.to_string().as_bytes())
    };
    assert!(parse(false, 0).is_ok());
    assert!(parse(true, 4).is_ok());
    let error = parse(true, 2).expect_err("two layers would slide").to_string();
    assert!(error.contains("use_sliding_window"), "{error}");
}
