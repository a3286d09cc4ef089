//! GGUF files written from the golden checkpoints, beside the same weights in safetensors.

use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::{Device, Tensor};
use serde_json::json;
use spectemp_model::config::Config;
use spectemp_model::kernels::Threads;
use spectemp_model::network::Network;
use spectemp_model::processor::{Patches, Processor};
use spectemp_model::weights::Weights;
use spectemp_model::{DTypeChoice, ModelFiles, QwenVlm};

use crate::gguf_file::{GgufFile, Meta, tensors};
use crate::network::{ids, run};
use crate::support::{copy, data, image, options, relative};

fn config(folder: &Path) -> Config {
    Config::parse(&std::fs::read(folder.join("config.json")).expect("there")).expect("parses")
}

fn network(files: &ModelFiles, dtype: DTypeChoice) -> Network {
    let config = Config::parse(&files.require("config.json").expect("there")).expect("parses");
    let weights = Weights::open(files).expect("opens");
    Network::load(&config, &weights, &Device::Cpu, dtype, &Threads::new(2)).expect("loads")
}

fn logits(network: &Network) -> Tensor {
    run(network, &ids(30, 1), 0, &mut network.text.new_cache())
}

/// A folder with `model.gguf` beside the checkpoint's other files.
fn with_language(folder: &Path, kind: impl Fn(&str) -> GgmlDType) -> tempfile::TempDir {
    let copy = copy(folder);
    let file = GgufFile::of(&config(folder).text).language(&tensors(folder), kind);
    file.write(&copy.path().join("model.gguf"));
    copy
}

fn gguf(folder: &Path) -> ModelFiles {
    ModelFiles::folder(folder.join("model.gguf"))
}

/// A checkpoint of random weights whose rows are whole blocks of 256.
fn wide() -> tempfile::TempDir {
    let folder = copy(&data("untied/model"));
    let path = folder.path().join("config.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
    let sizes = [("hidden_size", 256), ("intermediate_size", 512), ("num_hidden_layers", 2)];
    for (key, value) in sizes {
        json["text_config"][key] = value.into();
    }
    json["text_config"]["rope_parameters"]["mrope_section"] = json!([8, 12, 12]);
    json["vision_config"]["out_hidden_size"] = 256.into();
    std::fs::write(&path, json.to_string()).expect("writable");
    let random = Weights::random(3);
    Network::load(&config(folder.path()), &random, &Device::Cpu, DTypeChoice::F32, &Threads::new(2))
        .expect("loads");
    random.write_random(&folder.path().join("model.safetensors"), |_| 1.0).expect("writes");
    folder
}

#[test]
fn floats_give_the_logits_of_the_same_safetensors() {
    for model in ["tied/model", "untied/model"] {
        let own = logits(&network(&ModelFiles::folder(data(model)), DTypeChoice::F32));
        let folder = with_language(&data(model), |_| GgmlDType::F32);
        assert_eq!(relative(&logits(&network(&gguf(folder.path()), DTypeChoice::F32)), &own), 0.0, "{model}");
        for (kind, largest) in [(GgmlDType::F16, 5e-3), (GgmlDType::BF16, 5e-2)] {
            let folder = with_language(&data(model), |_| kind);
            let error = relative(&logits(&network(&gguf(folder.path()), DTypeChoice::F32)), &own);
            assert!(error > 0.0 && error < largest, "{model}, {kind:?}: {error}");
        }
    }
}

#[test]
fn blocks_are_used_as_they_are() {
    // With the table in f32, all that is left is what --dtype q8_0 quantises.
    let folder = with_language(&data("untied/model"), |name| {
        if name == "token_embd.weight" { GgmlDType::F32 } else { GgmlDType::Q8_0 }
    });
    let quantised = logits(&network(&ModelFiles::folder(data("untied/model")), DTypeChoice::Q8_0));
    assert_eq!(relative(&logits(&network(&gguf(folder.path()), DTypeChoice::F32)), &quantised), 0.0);
    let wide = wide();
    let folder = with_language(wide.path(), |name| match name {
        "token_embd.weight" => GgmlDType::F32,
        "output.weight" => GgmlDType::Q8_0,
        _ => GgmlDType::Q4K,
    });
    let quantised = logits(&network(&ModelFiles::folder(wide.path()), DTypeChoice::Q4K));
    assert_eq!(relative(&logits(&network(&gguf(folder.path()), DTypeChoice::F32)), &quantised), 0.0);
}

#[test]
fn files_of_mixed_types_are_near_their_floats() {
    let wide = wide();
    let own = logits(&network(&ModelFiles::folder(wide.path()), DTypeChoice::F32));
    // As llama.cpp mixes them: values and the head with more bits than the rest.
    let folder = with_language(wide.path(), |name| match name {
        "token_embd.weight" | "output.weight" => GgmlDType::Q6K,
        name if name.contains("attn_v") => GgmlDType::Q6K,
        name if name.contains("ffn_down") => GgmlDType::Q5K,
        name if name.contains("attn_k") => GgmlDType::Q5_0,
        _ => GgmlDType::Q4K,
    });
    let error = relative(&logits(&network(&gguf(folder.path()), DTypeChoice::F32)), &own);
    assert!(error > 0.0 && error < 0.3, "{error}");
}

#[test]
fn a_tied_table_in_blocks_is_the_head_too() {
    let folder = with_language(&data("tied/model"), |_| GgmlDType::Q8_0);
    let own = logits(&network(&ModelFiles::folder(data("tied/model")), DTypeChoice::F32));
    let error = relative(&logits(&network(&gguf(folder.path()), DTypeChoice::F32)), &own);
    assert!(error > 0.0 && error < 0.1, "{error}");
}

#[test]
fn the_vision_tower_comes_from_safetensors_or_from_a_file_of_its_own() {
    let model = data("untied/model");
    let config = config(&model);
    let folder = with_language(&model, |_| GgmlDType::F32);
    let processor = Processor::open(&ModelFiles::folder(&model), &config.vision).expect("opens");
    let patches = processor.patches(&image(140, 196, 1)).expect("patches");
    let grids = [patches.grid];
    let patches = Patches::stack(&[patches], &Device::Cpu).expect("a tensor");
    let embeds = |files: &ModelFiles| {
        network(files, DTypeChoice::F32).vision.forward(&patches, &grids).expect("embeddings")
    };
    let own = embeds(&ModelFiles::folder(&model));
    assert_eq!(relative(&embeds(&gguf(folder.path())), &own), 0.0);

    std::fs::remove_file(folder.path().join("model.safetensors")).expect("there");
    let error = QwenVlm::load(&gguf(folder.path()), &options()).expect_err("no vision tower").to_string();
    assert!(error.contains("mmproj") && error.contains("model.safetensors"), "{error}");
    for kind in [GgmlDType::F32, GgmlDType::F16] {
        let file = GgufFile::default().vision(&tensors(&model), kind);
        file.write(&folder.path().join("mmproj-model.gguf"));
        let error = relative(&embeds(&gguf(folder.path())), &own);
        assert!(
            if kind == GgmlDType::F32 { error == 0.0 } else { error > 0.0 && error < 5e-3 },
            "{kind:?}: {error}"
        );
    }
    QwenVlm::load(&gguf(folder.path()), &options()).expect("the whole checkpoint loads");
    std::fs::write(folder.path().join("other-mmproj.gguf"), b"").expect("writable");
    let error = QwenVlm::load(&gguf(folder.path()), &options()).expect_err("which one?").to_string();
    assert!(error.contains("other-mmproj.gguf"), "{error}");
}

#[test]
fn files_of_another_model_are_refused_by_name() {
    let model = data("untied/model");
    let error_with = |change: &dyn Fn(&mut GgufFile)| {
        let folder = copy(&model);
        let mut file = GgufFile::of(&config(&model).text).language(&tensors(&model), |_| GgmlDType::F32);
        change(&mut file);
        file.write(&folder.path().join("model.gguf"));
        QwenVlm::load(&gguf(folder.path()), &options()).expect_err("it is wrong").to_string()
    };
    let set = |file: &mut GgufFile, key: &str, value: Meta| {
        let place = file.metadata.iter_mut().find(|(name, _)| name == key).expect("a key");
        place.1 = value;
    };
    let error = error_with(&|file| set(file, "general.architecture", Meta::Text("llama")));
    assert!(error.contains("llama") && error.contains("qwen2vl"), "{error}");
    let error = error_with(&|file| set(file, "qwen2vl.block_count", Meta::U32(5)));
    assert!(error.contains("block_count") && error.contains('5') && error.contains("model.gguf"), "{error}");
    let error = error_with(&|file| set(file, "qwen2vl.rope.freq_base", Meta::F32(1e4)));
    assert!(error.contains("freq_base"), "{error}");
    let error =
        error_with(&|file| set(file, "qwen2vl.rope.dimension_sections", Meta::I32s(vec![2, 2, 4, 0])));
    assert!(error.contains("dimension_sections"), "{error}");
    let error = error_with(&|file| file.metadata.retain(|(name, _)| name != "qwen2vl.embedding_length"));
    assert!(error.contains("embedding_length is missing"), "{error}");
    let error = error_with(&|file| file.tensors.retain(|(name, ..)| name != "blk.2.ffn_up.weight"));
    // It is in the safetensors beside it too, which are opened for the vision tower only.
    assert!(error.contains("model.layers.2.mlp.up_proj.weight"), "{error}");
    let error = error_with(&|file| {
        let place = file.tensors.iter_mut().find(|(name, ..)| name == "blk.1.attn_q.weight").expect("there");
        place.1 = vec![32, 128];
    });
    assert!(error.contains("blk.1.attn_q.weight") && error.contains("[32, 128]"), "{error}");
    let error = error_with(&|file| {
        let place = file.tensors.iter_mut().find(|(name, ..)| name == "blk.1.attn_q.weight").expect("there");
        place.2 = 23;
    });
    assert!(error.contains("blk.1.attn_q") && error.contains("23"), "{error}");
}

#[test]
fn missing_and_cut_files_are_named() {
    let folder = copy(&data("tied/model"));
    let error = QwenVlm::load(&gguf(folder.path()), &options()).expect_err("missing").to_string();
    assert!(error.contains("model.gguf"), "{error}");
    let config = config(&data("tied/model"));
    let bytes = GgufFile::of(&config.text).language(&tensors(folder.path()), |_| GgmlDType::Q8_0).bytes();
    for length in [0, 3, 24, 100, 2000, bytes.len() / 2, bytes.len() - 64] {
        std::fs::write(folder.path().join("model.gguf"), &bytes[..length]).expect("writable");
        let error = QwenVlm::load(&gguf(folder.path()), &options()).expect_err("cut").to_string();
        assert!(error.contains("model.gguf is broken"), "{length}: {error}");
    }
}
