//! Headers: good, hostile, cut.

use proptest::prelude::*;

use super::header::Value;
use super::*;

const F32: u32 = 0;

/// A header of these numbers and one tensor `a` of type F32.
struct File {
    version: u32,
    tensors: u64,
    alignment: u32,
    sides: Vec<u64>,
    code: u32,
    offset: u64,
    data: usize,
}

impl Default for File {
    fn default() -> Self {
        Self { version: 3, tensors: 1, alignment: 32, sides: vec![2, 2], code: F32, offset: 0, data: 16 }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensors.to_le_bytes());
        out.extend(2_u64.to_le_bytes());
        text(&mut out, "general.alignment");
        out.extend(4_u32.to_le_bytes());
        out.extend(self.alignment.to_le_bytes());
        text(&mut out, "list");
        out.extend(9_u32.to_le_bytes());
        out.extend(8_u32.to_le_bytes());
        out.extend(2_u64.to_le_bytes());
        text(&mut out, "x");
        text(&mut out, "yz");
        text(&mut out, "a");
        out.extend((self.sides.len() as u32).to_le_bytes());
        self.sides.iter().for_each(|side| out.extend(side.to_le_bytes()));
        out.extend(self.code.to_le_bytes());
        out.extend(self.offset.to_le_bytes());
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend((0..self.data).map(|at| at as u8));
        out
    }
}

fn open(bytes: &[u8]) -> Result<Gguf, ModelError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open("x.gguf", Blob::open(&path)?.unwrap())
}

#[test]
fn a_good_file_is_read() {
    let file = open(&File { sides: vec![1, 4], ..File::default() }.bytes()).unwrap();
    assert_eq!(file.entry("a").unwrap().shape, [4, 1]);
    assert_eq!(file.header.metadata["general.alignment"], Value::Whole(32));
    assert_eq!(file.header.metadata["list"], Value::Skipped);
    let mut values = Vec::new();
    file.append_f32("a", &mut values).unwrap();
    assert_eq!(values[1], f32::from_le_bytes([4, 5, 6, 7]));
    assert!(file.blocks("a").unwrap().is_none());
    assert!(file.append_f32("b", &mut values).is_err());
}

#[test]
fn blocks_of_all_types_are_as_long_as_ggml_says() {
    for code in (0..40).filter(|code| ggml_type(*code).is_some()) {
        let kind = ggml_type(code).unwrap();
        let file = File {
            sides: vec![512, 2],
            code,
            data: 1024 / kind.block_size() * kind.type_size(),
            ..File::default()
        };
        let opened = open(&file.bytes()).unwrap();
        let mut values = Vec::new();
        opened.append_f32("a", &mut values).unwrap();
        assert_eq!(values.len(), 1024, "{kind:?}");
        assert!(open(&File { data: file.data - 1, ..file }.bytes()).is_err(), "{kind:?}");
    }
}

#[test]
fn hostile_headers_are_refused_by_name() {
    let huge = 1 << 62;
    for (file, word) in [
        (File { version: 1, ..File::default() }, "version 1"),
        (File { version: 3_u32.swap_bytes(), ..File::default() }, "big-endian"),
        (File { tensors: huge, ..File::default() }, "tensors"),
        (File { alignment: 0, ..File::default() }, "alignment"),
        (File { alignment: 24, ..File::default() }, "alignment"),
        (File { sides: vec![huge, huge], ..File::default() }, "tensor a"),
        (File { sides: vec![1 << 32], ..File::default() }, "tensor a"),
        (File { sides: vec![1; 9], ..File::default() }, "9 sides"),
        (File { offset: 32, ..File::default() }, "tensor a"),
        (File { offset: u64::MAX - 31, ..File::default() }, "tensor a"),
        (File { offset: 8, ..File::default() }, "offset 8"),
        (File { code: 8, ..File::default() }, "whole blocks"),
    ] {
        let error = open(&file.bytes()).unwrap_err().to_string();
        assert!(error.contains("x.gguf") && error.contains(word), "{word}: {error}");
    }
    // A type that is not known is refused where it is asked for.
    let file = open(&File { code: 99, ..File::default() }.bytes()).unwrap();
    let error = file.append_f32("a", &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("99") && error.contains("x.gguf"), "{error}");
    assert!(open(b"GGML").is_err());
    let mut nested = File::default().bytes();
    let at = nested.windows(4).position(|four| four == b"list").unwrap() + 4 + 4;
    nested[at] = 9;
    assert!(open(&nested).unwrap_err().to_string().contains("arrays of arrays"));
}

#[test]
fn every_canonical_name_has_a_place() {
    let names = |canonical: &str| place(canonical).map(|place| place.names.join(" "));
    assert_eq!(names("model.layers.7.self_attn.q_proj.bias").as_deref(), Some("blk.7.attn_q.bias"));
    assert_eq!(names("visual.merger.mlp.2.bias").as_deref(), Some("mm.2.bias"));
    assert_eq!(
        names("visual.blocks.3.attn.qkv.bias").as_deref(),
        Some("v.blk.3.attn_q.bias v.blk.3.attn_k.bias v.blk.3.attn_v.bias")
    );
    assert_eq!(names("model.layers.7.other.weight"), None);
    assert_eq!(names("nothing"), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn no_change_of_a_file_makes_it_panic(changes in prop::collection::vec((0..180_usize, any::<u8>()), 1..4), cut in 0..220_usize) {
        let mut bytes = File::default().bytes();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.max(40));
        // An error or other values; what counts is that it returns.
        if let Ok(file) = open(&bytes) {
            for name in file.header.tensors.keys() {
                let mut values = Vec::new();
                if file.append_f32(name, &mut values).is_ok() {
                    prop_assert!(values.len() <= bytes.len() * 4);
                }
            }
        }
    }
}
