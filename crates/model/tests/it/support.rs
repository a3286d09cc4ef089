//! Fixtures and small helpers.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde_json::Value;
use spectemp_engine::{Generation, Message, Part, Request, RgbImage, Role, Sampling, TokenRecord};
use spectemp_model::{DeviceChoice, LoadOptions, ModelFiles, QwenVlm};
use tokio_util::sync::CancellationToken;

/// This crate's folder. A program that was built elsewhere is told of it by the variable (`scripts/gpu.sh`).
fn home() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// A file or folder of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    let path = home().join("tests/data").join(name);
    assert!(path.exists(), "fixture {} is missing", path.display());
    path
}

/// One of the demonstration pair.
pub(crate) fn demo(which: &str) -> PathBuf {
    let path = home().join("../../models/demo").join(which);
    assert!(path.exists(), "model {} is missing", path.display());
    path
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("the fixture can be read"))
        .expect("the fixture is JSON")
}

/// Where the models of the tests compute: `SPECTEMP_TEST_DEVICE`, usually the CPU.
fn device() -> DeviceChoice {
    std::env::var("SPECTEMP_TEST_DEVICE")
        .map_or(DeviceChoice::Cpu, |name| name.parse().expect("SPECTEMP_TEST_DEVICE is cpu or cuda:N"))
}

pub(crate) fn options() -> LoadOptions {
    LoadOptions { threads: Some(2), device: device(), ..LoadOptions::default() }
}

/// How far log-probabilities may be apart. On the CPU not by a bit; a GPU's products add up in another order for each
/// number of rows.
fn tolerance() -> f64 {
    if device() == DeviceChoice::Cpu { 0.0 } else { 1e-3 }
}

/// The same tokens with the same probabilities.
pub(crate) fn assert_tokens(a: &[TokenRecord], b: &[TokenRecord], case: &str) {
    let ids = |tokens: &[TokenRecord]| tokens.iter().map(|t| (t.id, t.text_end)).collect::<Vec<_>>();
    assert_eq!(ids(a), ids(b), "{case}");
    for (a, b) in a.iter().zip(b) {
        assert!((a.logprob - b.logprob).abs() <= tolerance(), "{case}: {a:?} {b:?}");
    }
}

/// The same of all but times and what was reused.
pub(crate) fn assert_same(a: &Generation, b: &Generation) {
    assert_eq!((&a.text, a.finish), (&b.text, b.finish));
    assert_tokens(&a.tokens, &b.tokens, &a.text);
    let (ours, theirs) = (a.scores.iter().flatten(), b.scores.iter().flatten());
    assert_eq!(ours.clone().count(), theirs.clone().count());
    for (a, b) in ours.zip(theirs) {
        assert!((a - b).abs() <= tolerance(), "scores {a} {b}");
    }
    let counts = |of: &Generation| (of.counts.text, of.counts.visual, of.counts.generated);
    assert_eq!(counts(a), counts(b));
}

pub(crate) fn load(folder: &Path) -> QwenVlm {
    QwenVlm::load(&ModelFiles::folder(folder), &options()).expect("the checkpoint loads")
}

/// A copy of a checkpoint that a test may change.
pub(crate) fn copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for entry in std::fs::read_dir(folder).expect("the fixture is a folder") {
        let entry = entry.expect("a file");
        if entry.path().is_file() {
            let to = copy.path().join(entry.file_name());
            // Not std::fs::copy: fixtures may be read-only, and so would their copies be.
            std::fs::write(to, std::fs::read(entry.path()).expect("readable")).expect("writable");
        }
    }
    copy
}

/// The golden checkpoint with an end token that it cannot write.
pub(crate) fn endless() -> tempfile::TempDir {
    let folder = copy(&data("untied/model"));
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id":9999}"#)
        .expect("writable");
    folder
}

pub(crate) fn greedy() -> Sampling {
    Sampling { temperature: 0.0, top_p: 1.0, seed: 0 }
}

pub(crate) fn request(messages: Vec<Message>, max_new_tokens: u32) -> Request {
    Request {
        messages,
        sampling: greedy(),
        max_new_tokens,
        grammar: None,
        think_tokens: max_new_tokens,
        stops: Vec::new(),
        score: None,
        cancel: CancellationToken::new(),
    }
}

pub(crate) fn message(role: Role, parts: Vec<Part>) -> Message {
    Message { role, parts }
}

pub(crate) fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

/// An image that differs with its seed.
pub(crate) fn image(width: u32, height: u32, seed: u32) -> RgbImage {
    let value = |i: u32| ((i.wrapping_mul(2_654_435_761) >> 24) ^ (i / 97 + seed * 31)) as u8;
    let data: Vec<u8> = (0..width * height * 3).map(|i| value(i.wrapping_add(seed * 7919))).collect();
    RgbImage { width, height, data: data.into() }
}

/// `max|a-b| / max|b|`
pub(crate) fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let difference = (a - b).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>()).expect("same shapes");
    let largest = b.abs().and_then(|b| b.max_all()?.to_scalar::<f32>()).expect("not empty");
    f64::from(difference / largest)
}
