//! A checkpoint's tensors by their canonical name, whatever the spelling of the files: `model.layers.*` + `visual.*`
//! (published) or `model.language_model.*` + `model.visual.*` (newer writers), in one file or in shards with an index.
//! Canonical here: `model.…`, `visual.…`, `lm_head.weight`. llama.cpp's GGUF files, which have names of their own, come first.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::ModelError;
use crate::config::Config;
use crate::files::{Blob, ModelFiles};
use crate::gguf::{self, Gguf, Join, Place};
use crate::kernels::BlockType;
use crate::safetensors::SafeTensors;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What the vision tower's canonical names begin with.
const VISION: &str = "visual.";

/// Where tensors come from.
#[derive(Debug)]
pub struct Weights {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Files { gguf: Vec<Gguf>, shards: Vec<SafeTensors>, places: HashMap<String, (usize, String)> },
    Random { seed: u64, asked: Mutex<BTreeMap<String, Vec<usize>>> },
    Drawn,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Weights {
    /// Opens the weight files of a checkpoint and reads their headers.
    ///
    /// # Errors
    /// [`ModelError::Missing`] without weights, [`ModelError::Broken`] for a hostile or truncated file.
    pub fn open(files: &ModelFiles) -> Result<Self, ModelError> {
        let (mut gguf, mut shards) = (Vec::new(), Vec::new());
        for name in weight_files(files)? {
            let blob = open_weights(files, &name)?;
            if is_gguf(&name) {
                gguf.push(Gguf::open(name, blob)?);
            } else {
                shards.push(SafeTensors::open(name, blob)?);
            }
        }
        let mut places = HashMap::new();
        for (number, shard) in shards.iter().enumerate() {
            for name in shard.names() {
                let canonical = canonical(name);
                if !gguf.is_empty() && !canonical.starts_with(VISION) {
                    // The language model's are the GGUF file's alone, never a mixture.
                    continue;
                }
                if let Some((_, other)) = places.insert(canonical.clone(), (number, name.to_owned())) {
                    return Err(ModelError::tensor(
                        canonical,
                        format!("is there twice, as {other} and {name}"),
                    ));
                }
            }
        }
        Ok(Self { source: Source::Files { gguf, shards, places } })
    }

    /// Checks that a GGUF file, where there is one, is of the model that the config describes.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for another kind of model, [`ModelError::Broken`] for other numbers.
    pub(crate) fn check_config(&self, config: &Config) -> Result<(), ModelError> {
        match &self.source {
            // The first is the language model's, the other may be the vision tower's.
            Source::Files { gguf, .. } => {
                gguf.first().map_or(Ok(()), |file| gguf::check_config(file, &config.text))
            }
            Source::Random { .. } | Source::Drawn => Ok(()),
        }
    }

    /// Random weights for measuring: each tensor is drawn from its name and the seed when it is asked for.
    pub fn random(seed: u64) -> Self {
        Self { source: Source::Random { seed, asked: Mutex::default() } }
    }

    /// Random weights for measuring that are drawn where they are to lie, by that device's generator: a 7B model in seconds.
    /// Two loads differ.
    pub fn drawn() -> Self {
        Self { source: Source::Drawn }
    }

    /// Writes the random tensors that were asked for so far to a safetensors file, so that a peer can load the same; each is
    /// multiplied by what `scale` gives for its name.
    ///
    /// # Errors
    /// [`ModelError::Source`] for weights that are no random ones, [`ModelError::Broken`] where the file cannot be written.
    pub fn write_random(&self, path: &Path, scale: impl Fn(&str) -> f32) -> Result<(), ModelError> {
        let Source::Random { seed, asked } = &self.source else {
            let reason = "only random weights are written".to_owned();
            return Err(ModelError::Source { model: path.display().to_string(), reason });
        };
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tensors = asked.into_iter().map(|(name, shape)| {
            let factor = scale(&name);
            let values: Vec<f32> =
                random_values(&name, &shape, *seed).into_iter().map(|value| value * factor).collect();
            Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?))
        });
        let tensors: HashMap<String, Tensor> = tensors.collect::<Result<_, candle_core::Error>>()?;
        candle_core::safetensors::save(&tensors, path)
            .map_err(|error| ModelError::broken(path.display().to_string(), error))
    }

    /// Whether the checkpoint holds a tensor of this canonical name.
    pub fn has(&self, name: &str) -> bool {
        !matches!(self.source, Source::Files { .. }) || self.look_up(name).is_some()
    }

    /// The type that a tensor has in its file, where it is one of candle's.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        match self.look_up(name)? {
            Found::SafeTensor(shard, spelled) => {
                shard.entry(spelled)?.dtype.to_ascii_lowercase().parse().ok()
            }
            Found::Gguf(file, place) => file.dtype(place.names.first()?),
        }
    }

    /// Whether a tensor is blocks of small integers in its file.
    pub(crate) fn in_blocks(&self, name: &str) -> bool {
        matches!(self.look_up(name), Some(Found::Gguf(..))) && self.dtype(name).is_none()
    }

    /// The blocks of a tensor of exactly this shape, where products are computed with such as they are.
    ///
    /// # Errors
    /// As [`Weights::values`].
    pub(crate) fn blocks(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<(BlockType, Vec<u8>)>, ModelError> {
        if !self.in_blocks(name) {
            return Ok(None);
        }
        match self.find(name, shape)? {
            Found::Gguf(file, Place { names, .. }) => match names.as_slice() {
                [one] => file.blocks(one),
                _ => Ok(None),
            },
            Found::SafeTensor(..) => Ok(None),
        }
    }

    /// A tensor of exactly this shape, as f32 values in row order.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] where it is missing, has another shape or a type that is not a float.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        match &self.source {
            Source::Random { seed, asked } => {
                asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), shape.to_vec());
                return Ok(random_values(name, shape, *seed));
            }
            Source::Drawn => return Ok(random_values(name, shape, 0)),
            Source::Files { .. } => {}
        }
        let mut out = Vec::new();
        match self.find(name, shape)? {
            Found::SafeTensor(shard, spelled) => shard.append_f32(spelled, &mut out)?,
            Found::Gguf(file, Place { names, join: Join::Rows }) => {
                for name in &names {
                    file.append_f32(name, &mut out)?;
                }
            }
            Found::Gguf(file, Place { names, join: Join::Frames }) => {
                let frame = shape.iter().rev().take(2).product();
                out = frames_together(file, &names, frame)?;
            }
        }
        Ok(out)
    }

    /// A tensor of exactly this shape in the wanted type on the wanted device.
    ///
    /// # Errors
    /// As [`Weights::values`].
    pub fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, ModelError> {
        if dtype == DType::BF16
            && let Some(Found::SafeTensor(..)) = self.look_up(name)
            && let Found::SafeTensor(shard, spelled) = self.find(name, shape)?
        {
            // Straight from the file: the f32 copy of a large table would double the peak.
            let mut out: Vec<bf16> = Vec::new();
            shard.append_bf16(spelled, &mut out)?;
            return Ok(Tensor::from_vec(out, shape, device)?);
        }
        if matches!(self.source, Source::Drawn) {
            let (centre, spread) = random_spread(name, shape);
            return Ok(Tensor::rand(centre - spread, centre + spread, shape, device)?.to_dtype(dtype)?);
        }
        Ok(Tensor::from_vec(self.values(name, shape)?, shape, device)?.to_dtype(dtype)?)
    }

    fn look_up(&self, name: &str) -> Option<Found<'_>> {
        let Source::Files { gguf, shards, places } = &self.source else { return None };
        if let Some(place) = gguf::place(name) {
            let has = |file: &&Gguf| place.names.iter().all(|name| file.entry(name).is_some());
            if let Some(file) = gguf.iter().find(has) {
                return Some(Found::Gguf(file, place));
            }
        }
        let (number, spelled) = places.get(name)?;
        Some(Found::SafeTensor(&shards[*number], spelled))
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<Found<'_>, ModelError> {
        let found =
            self.look_up(name).ok_or_else(|| ModelError::tensor(name, "the checkpoint does not have it"))?;
        let (spelled, file, got) = match &found {
            Found::SafeTensor(shard, spelled) => {
                let got = shard.entry(spelled).map(|entry| entry.shape.clone()).unwrap_or_default();
                ((*spelled).to_owned(), shard.name(), got)
            }
            Found::Gguf(file, place) => (place.names.join(" + "), file.name(), joined_shape(file, place)),
        };
        if got == shape {
            return Ok(found);
        }
        Err(ModelError::tensor(
            spelled,
            format!("has shape {got:?} in {file}, config.json asks for {shape:?}"),
        ))
    }
}

/// Where a tensor is.
enum Found<'a> {
    SafeTensor(&'a SafeTensors, &'a str),
    Gguf(&'a Gguf, Place),
}

/// The shape of tensors that make up one; nothing where they do not fit each other.
fn joined_shape(file: &Gguf, place: &Place) -> Vec<usize> {
    let mut shapes = place.names.iter().filter_map(|name| file.entry(name)).map(|entry| entry.shape.clone());
    let Some(mut joined) = shapes.next() else { return Vec::new() };
    for shape in shapes {
        let fits = match place.join {
            Join::Rows => joined.get(1..) == shape.get(1..),
            Join::Frames => joined == shape,
        };
        if !fits {
            return Vec::new();
        }
        if let (Join::Rows, Some(rows), Some(more)) = (place.join, joined.first_mut(), shape.first()) {
            *rows = rows.saturating_add(*more);
        }
    }
    if place.join == Join::Frames && joined.len() == 4 {
        joined.insert(2, place.names.len());
    }
    joined
}

/// Frames of `frame` values each, those of all tensors in turns.
fn frames_together(file: &Gguf, names: &[String], frame: usize) -> Result<Vec<f32>, ModelError> {
    let mut copies = Vec::with_capacity(names.len());
    for name in names {
        let mut values = Vec::new();
        file.append_f32(name, &mut values)?;
        copies.push(values);
    }
    let mut out = Vec::with_capacity(copies.iter().map(Vec::len).sum());
    let count = copies.first().map_or(0, |copy| copy.len() / frame.max(1));
    for at in 0..count {
        copies.iter().for_each(|copy| out.extend_from_slice(&copy[at * frame..(at + 1) * frame]));
    }
    Ok(out)
}

/// The shards that the index names, or the single file.
fn shard_names(files: &ModelFiles) -> Result<Vec<String>, ModelError> {
    shard_names_where(files, |_| true)
}

fn shard_names_where(files: &ModelFiles, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, ModelError> {
    let Some(index) = files.read(INDEX)? else { return Ok(vec![SINGLE.to_owned()]) };
    let index: Index = serde_json::from_slice(&index).map_err(|error| ModelError::broken(INDEX, error))?;
    let shards = index.weight_map.into_iter().filter(|(tensor, _)| wanted(tensor)).map(|(_, shard)| shard);
    let mut names: Vec<String> = shards.collect();
    names.sort_unstable();
    names.dedup();
    // A shard is a plain file beside the index; anything else would read outside the folder.
    if let Some(name) =
        names.iter().find(|name| name.contains(['/', '\\']) || !name.ends_with(".safetensors"))
    {
        return Err(ModelError::broken(INDEX, format!("{name:?} is no shard's name")));
    }
    Ok(names)
}

/// Files that hold the weights: those in safetensors, or the language model in GGUF and the vision tower in either.
pub(crate) fn weight_files(files: &ModelFiles) -> Result<Vec<String>, ModelError> {
    let Some(language) = files.gguf() else { return shard_names(files) };
    let mut names = vec![language.to_owned()];
    match files.vision_gguf()? {
        Some(vision) => names.push(vision),
        None => names.extend(vision_shards(files)?),
    }
    Ok(names)
}

/// Opens one of them.
pub(crate) fn open_weights(files: &ModelFiles, name: &str) -> Result<Blob, ModelError> {
    let missing = || {
        let file = match files.gguf() {
            Some(language) if language != name => format!("mmproj*.gguf, nor {name}, with the vision tower"),
            _ => name.to_owned(),
        };
        ModelError::Missing { model: files.name().to_owned(), file }
    };
    files.open(name)?.ok_or_else(missing)
}

/// Of the shards that the index names those with the vision tower, or the single file: the others need not be there.
fn vision_shards(files: &ModelFiles) -> Result<Vec<String>, ModelError> {
    shard_names_where(files, |tensor| canonical(tensor).starts_with(VISION))
}

fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

fn canonical(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        return format!("model.{rest}");
    }
    if let Some(rest) = name.strip_prefix("model.visual.") {
        return format!("visual.{rest}");
    }
    name.to_owned()
}

fn random_values(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let hash = blake3::hash(format!("{seed} {name}").as_bytes());
    let mut generator = ChaCha8Rng::from_seed(*hash.as_bytes());
    let count: usize = shape.iter().product();
    let (centre, spread) = random_spread(name, shape);
    (0..count).map(|_| centre + generator.random_range(-spread..spread)).collect()
}

/// The middle, and how far values lie from it: norms near 1, everything else around 0 with the spread of 1/√inputs.
fn random_spread(name: &str, shape: &[usize]) -> (f32, f32) {
    let norm = name.contains("norm") || name.contains("ln_q");
    let inputs: usize = shape.iter().skip(1).product();
    let spread = if shape.len() > 1 { (3.0 / inputs as f32).sqrt() } else { 0.1 };
    let centre = if norm { 1.0 } else { 0.0 };
    (centre, spread)
}
