//! A GGUF file's header: metadata, and where the tensors lie.

use std::collections::HashMap;

use super::cursor::Cursor;
use super::{Entry, ggml_type};
use crate::files::Blob;

const MAGIC: u32 = u32::from_le_bytes(*b"GGUF");
/// More metadata or tensors than any model has.
const MAX_ENTRIES: u64 = 1 << 16;
/// Longer arrays are the tokenizer's, which is not read from here.
const MAX_KEPT: u64 = 64;
const MAX_SIDES: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// What a header says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: HashMap<String, Value>,
    pub(super) tensors: HashMap<String, Entry>,
    pub(super) data_start: u64,
}

/// Metadata of use here.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Float(f64),
    Text(String),
    /// A short array of whole numbers.
    Wholes(Vec<u64>),
    /// Anything else.
    Skipped,
}

pub(super) fn read(blob: &Blob) -> Result<Header, String> {
    let mut cursor = Cursor::new(blob);
    if cursor.left() < 24 {
        return Err(format!("{} bytes are no GGUF file", cursor.left()));
    }
    if cursor.u32()? != MAGIC {
        return Err("it does not begin with GGUF".to_owned());
    }
    match cursor.u32()? {
        2 | 3 => {}
        version if version.swap_bytes() <= 3 => {
            return Err("it is big-endian, which is not supported".to_owned());
        }
        version => return Err(format!("version {version} is not supported, only 2 and 3")),
    }
    let (tensors, values) = (cursor.u64()?, cursor.u64()?);
    if tensors > MAX_ENTRIES || values > MAX_ENTRIES {
        return Err(format!("the header claims {tensors} tensors and {values} values"));
    }
    let metadata = read_metadata(&mut cursor, values)?;
    let tensors = read_tensors(&mut cursor, tensors)?;
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(Value::Whole(alignment)) if alignment.is_power_of_two() && *alignment <= 1 << 20 => *alignment,
        Some(other) => return Err(format!("general.alignment is {other:?}")),
    };
    let data_start = cursor.at().next_multiple_of(alignment);
    let available = blob.len().saturating_sub(data_start);
    for (name, entry) in &tensors {
        check(entry, alignment, available).map_err(|reason| format!("tensor {name}: {reason}"))?;
    }
    Ok(Header { metadata, tensors, data_start })
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<HashMap<String, Value>, String> {
    let mut metadata = HashMap::new();
    for _ in 0..count {
        let key = cursor.text()?;
        let kind = cursor.u32()?;
        let value = read_value(cursor, kind).map_err(|reason| format!("{key}: {reason}"))?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("{key} is there twice"));
        }
    }
    Ok(metadata)
}

/// Types by their numbers in the format's description.
fn read_value(cursor: &mut Cursor<'_>, kind: u32) -> Result<Value, String> {
    const TEXT: u32 = 8;
    const ARRAY: u32 = 9;
    Ok(match kind {
        0 | 7 => Value::Whole(cursor.u8()?.into()),
        2 => Value::Whole(cursor.u16()?.into()),
        4 => Value::Whole(cursor.u32()?.into()),
        10 => Value::Whole(cursor.u64()?),
        1 => signed(cursor.u8()?.cast_signed().into()),
        3 => signed(cursor.u16()?.cast_signed().into()),
        5 => signed(cursor.u32()?.cast_signed().into()),
        11 => signed(cursor.u64()?.cast_signed()),
        6 => Value::Float(f32::from_bits(cursor.u32()?).into()),
        12 => Value::Float(f64::from_bits(cursor.u64()?)),
        TEXT => Value::Text(cursor.text()?),
        ARRAY => {
            let (kind, count) = (cursor.u32()?, cursor.u64()?);
            if kind == ARRAY {
                return Err("arrays of arrays are not supported".to_owned());
            }
            read_array(cursor, kind, count)?
        }
        _ => return Err(format!("type {kind} is unknown")),
    })
}

fn signed(value: i64) -> Value {
    u64::try_from(value).map_or(Value::Skipped, Value::Whole)
}

fn read_array(cursor: &mut Cursor<'_>, kind: u32, count: u64) -> Result<Value, String> {
    // Each item has a byte at least, so that this ends with the file.
    if count > cursor.left() {
        return Err(format!("an array of {count} items at byte {}", cursor.at()));
    }
    let mut wholes = Some(Vec::new()).filter(|_| count <= MAX_KEPT);
    for _ in 0..count {
        let value = read_value(cursor, kind)?;
        match (value, &mut wholes) {
            (Value::Whole(whole), Some(wholes)) => wholes.push(whole),
            _ => wholes = None,
        }
    }
    Ok(wholes.map_or(Value::Skipped, Value::Wholes))
}

fn read_tensors(cursor: &mut Cursor<'_>, count: u64) -> Result<HashMap<String, Entry>, String> {
    let mut tensors = HashMap::new();
    for _ in 0..count {
        let name = cursor.text()?;
        let entry = read_entry(cursor).map_err(|reason| format!("tensor {name}: {reason}"))?;
        if tensors.insert(name.clone(), entry).is_some() {
            return Err(format!("tensor {name} is there twice"));
        }
    }
    Ok(tensors)
}

fn read_entry(cursor: &mut Cursor<'_>) -> Result<Entry, String> {
    let sides = cursor.u32()?;
    if sides > MAX_SIDES {
        return Err(format!("{sides} sides at byte {}", cursor.at()));
    }
    let mut shape = Vec::new();
    let mut elements = 1_usize;
    for _ in 0..sides {
        let side = cursor.u64()?;
        let product = usize::try_from(side).ok().and_then(|side| Some((side, elements.checked_mul(side)?)));
        let Some((side, product)) = product else { return Err(format!("a side of {side}")) };
        shape.push(side);
        elements = product;
    }
    // The file names the innermost side first.
    shape.reverse();
    Ok(Entry { shape, elements, code: cursor.u32()?, offset: cursor.u64()? })
}

fn check(entry: &Entry, alignment: u64, available: u64) -> Result<(), String> {
    let Entry { code, shape, elements, offset } = entry;
    // A type that is not known here is refused where the tensor is asked for.
    let Some(kind) = ggml_type(*code) else { return Ok(()) };
    if !offset.is_multiple_of(alignment) {
        return Err(format!("its offset {offset} is no multiple of {alignment}"));
    }
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(kind.block_size()) {
        return Err(format!("rows of {row} values are no whole blocks of {kind:?}"));
    }
    let bytes = (elements / kind.block_size()).checked_mul(kind.type_size()).map(|bytes| bytes as u64);
    match bytes.and_then(|bytes| offset.checked_add(bytes)) {
        Some(end) if end <= available => Ok(()),
        _ => Err(format!(
            "{shape:?} of {kind:?} from offset {offset} on are not within the {available} bytes after the header"
        )),
    }
}
