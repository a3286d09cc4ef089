//! Files that are missing, cut, hostile or of the wrong shape: an error that names them, never a panic.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::json;
use spectemp_model::{ModelFiles, QwenVlm};

use crate::support::{copy, data, options};

fn error(folder: &Path) -> String {
    QwenVlm::load(&ModelFiles::folder(folder), &options()).expect_err("it is broken").to_string()
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = copy(&data("tied/model"));
        std::fs::remove_file(folder.path().join(file)).expect("there");
        let error = error(folder.path());
        assert!(error.contains(file), "{error}");
    }
    let error = error(Path::new("/nowhere/at/all"));
    assert!(error.contains("/nowhere/at/all") && error.contains("config.json"), "{error}");
    // A shard that the index names.
    let folder = copy(&data("tied/model"));
    let index = json!({"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}).to_string();
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).expect("writable");
    let error = self::error(folder.path());
    assert!(error.contains("model-00001-of-00001.safetensors"), "{error}");
}

#[test]
fn broken_json_is_named() {
    for file in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "chat_template.json",
    ] {
        for content in ["", "{", "[1]", "\u{0}\u{1}"] {
            let folder = copy(&data("tied/model"));
            std::fs::write(folder.path().join(file), content).expect("writable");
            let loaded = QwenVlm::load(&ModelFiles::folder(folder.path()), &options());
            // A list is a lawful JSON value where only optional fields are looked up.
            if content == "[1]" && ["tokenizer_config.json", "generation_config.json"].contains(&file) {
                assert!(loaded.is_ok(), "{file}");
                continue;
            }
            let error = loaded.expect_err(file).to_string();
            assert!(error.contains(file), "{file}: {error}");
        }
    }
    let folder = copy(&data("tied/model"));
    std::fs::write(folder.path().join("chat_template.jinja"), "{% if %}").expect("writable");
    assert!(error(folder.path()).contains("chat_template.jinja"));
}

#[test]
fn indexes_that_lead_out_of_the_folder_are_refused() {
    for name in ["../model.safetensors", "/etc/passwd", "model.bin"] {
        let folder = copy(&data("tied/model"));
        let index = json!({"weight_map": {"model.norm.weight": name}}).to_string();
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).expect("writable");
        let error = error(folder.path());
        assert!(error.contains("no shard's name"), "{error}");
    }
}

#[test]
fn tensors_that_are_missing_or_of_another_shape_are_named() {
    let change = |f: &dyn Fn(&mut std::collections::HashMap<String, Tensor>)| {
        let folder = copy(&data("tied/model"));
        let path = folder.path().join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).expect("readable");
        f(&mut tensors);
        candle_core::safetensors::save(&tensors, &path).expect("writable");
        error(folder.path())
    };
    let name = "model.layers.2.mlp.up_proj.weight";
    assert!(change(&|tensors| drop(tensors.remove(name))).contains(name));
    let error =
        change(&|tensors| {
            drop(tensors.insert(
                name.to_owned(),
                Tensor::zeros((160, 63), DType::F32, &Device::Cpu).expect("a tensor"),
            ))
        });
    assert!(error.contains(name) && error.contains("[160, 63]") && error.contains("[160, 64]"), "{error}");
    let error =
        change(&|tensors| {
            drop(tensors.insert(
                name.to_owned(),
                Tensor::zeros((160, 64), DType::I64, &Device::Cpu).expect("a tensor"),
            ))
        });
    assert!(error.contains(name) && error.contains("I64"), "{error}");
    let error = change(&|tensors| {
        let norm = tensors["model.norm.weight"].clone();
        tensors.insert("model.language_model.norm.weight".to_owned(), norm);
    });
    assert!(error.contains("twice"), "{error}");
}

#[test]
fn hostile_headers_and_cut_files_are_refused() {
    let good = std::fs::read(data("tied/model/model.safetensors")).expect("readable");
    let header = |json: &str| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.extend_from_slice(&[0; 64]);
        bytes
    };
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut files =
        vec![Vec::new(), vec![1, 2, 3], good[..good.len() / 2].to_vec(), good[..100].to_vec(), huge];
    for json in [
        "{",
        "[]",
        r#"{"a":1}"#,
        r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,999]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,8],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"NUL","shape":[4],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,18446744073709551615]}}"#,
    ] {
        files.push(header(json));
    }
    for bytes in files {
        let folder = copy(&data("tied/model"));
        std::fs::write(folder.path().join("model.safetensors"), &bytes).expect("writable");
        let error = error(folder.path());
        assert!(error.contains("model.safetensors") || error.contains("tensor"), "{error}");
    }
}
