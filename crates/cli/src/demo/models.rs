//! The demonstration pair, inside the program: `spectemp demo` works from any folder.

use spectemp_model::ModelFiles;

macro_rules! files {
    ($role:literal, [$($name:literal),+ $(,)?]) => {
        &[$(($name, include_bytes!(concat!("../../../../models/demo/", $role, "/", $name)))),+]
    };
}

const TARGET: &[(&str, &[u8])] = files!(
    "target",
    [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "prompts/target.jinja",
    ]
);

const DRAFT: &[(&str, &[u8])] = files!(
    "draft",
    [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "prompts/draft.jinja",
    ]
);

/// The files of the demonstration's target.
pub(crate) fn target() -> ModelFiles {
    ModelFiles::embedded("demo/target", TARGET)
}

/// The files of the demonstration's draft.
pub(crate) fn draft() -> ModelFiles {
    ModelFiles::embedded("demo/draft", DRAFT)
}
