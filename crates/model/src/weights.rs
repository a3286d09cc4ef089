//! A checkpoint's tensors by their canonical name, whatever the spelling of the files: `model.layers.*` + `visual.*`
//! (published) or `model.language_model.*` + `model.visual.*` (newer writers), in one file or in shards with an index.
//! Canonical here: `model.…`, `visual.…`, `lm_head.weight`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::ModelError;
use crate::files::ModelFiles;
use crate::safetensors::SafeTensors;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Where tensors come from.
#[derive(Debug)]
pub struct Weights {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Files { shards: Vec<SafeTensors>, places: HashMap<String, (usize, String)> },
    Random { seed: u64, asked: Mutex<BTreeMap<String, Vec<usize>>> },
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Weights {
    /// Opens the safetensors files of a checkpoint and reads their headers.
    ///
    /// # Errors
    /// [`ModelError::Missing`] without weights, [`ModelError::Broken`] for a hostile or truncated file.
    pub fn open(files: &ModelFiles) -> Result<Self, ModelError> {
        let mut shards = Vec::new();
        for name in shard_names(files)? {
            let blob = files.open(&name)?;
            let blob = blob
                .ok_or_else(|| ModelError::Missing { model: files.name().to_owned(), file: name.clone() })?;
            shards.push(SafeTensors::open(name, blob)?);
        }
        let mut places = HashMap::new();
        for (number, shard) in shards.iter().enumerate() {
            for name in shard.names() {
                let canonical = canonical(name);
                if let Some((_, other)) = places.insert(canonical.clone(), (number, name.to_owned())) {
                    return Err(ModelError::tensor(
                        canonical,
                        format!("is there twice, as {other} and {name}"),
                    ));
                }
            }
        }
        Ok(Self { source: Source::Files { shards, places } })
    }

    /// Random weights for measuring: each tensor is drawn from its name and the seed when it is asked for.
    pub fn random(seed: u64) -> Self {
        Self { source: Source::Random { seed, asked: Mutex::default() } }
    }

    /// Writes the random tensors that were asked for so far to a safetensors file, so that a peer can load the same.
    ///
    /// # Errors
    /// [`ModelError::Source`] for weights that are no random ones, [`ModelError::Broken`] where the file cannot be written.
    pub fn write_random(&self, path: &Path) -> Result<(), ModelError> {
        let Source::Random { seed, asked } = &self.source else {
            let reason = "only random weights are written".to_owned();
            return Err(ModelError::Source { model: path.display().to_string(), reason });
        };
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tensors = asked.into_iter().map(|(name, shape)| {
            let values = random_values(&name, &shape, *seed);
            Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?))
        });
        let tensors: HashMap<String, Tensor> = tensors.collect::<Result<_, candle_core::Error>>()?;
        candle_core::safetensors::save(&tensors, path)
            .map_err(|error| ModelError::broken(path.display().to_string(), error))
    }

    /// Whether the checkpoint holds a tensor of this canonical name.
    pub fn has(&self, name: &str) -> bool {
        match &self.source {
            Source::Files { places, .. } => places.contains_key(name),
            Source::Random { .. } => true,
        }
    }

    /// A tensor of exactly this shape, as f32 values in row order.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] where it is missing, has another shape or a type that is not a float.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let mut out = Vec::new();
        match &self.source {
            Source::Files { .. } => {
                let (shard, spelled) = self.find(name, shape)?;
                shard.append_f32(spelled, &mut out)?;
            }
            Source::Random { seed, asked } => {
                asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), shape.to_vec());
                out = random_values(name, shape, *seed);
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
        if dtype == DType::BF16 && matches!(self.source, Source::Files { .. }) {
            // Straight from the file: the f32 copy of a large table would double the peak.
            let mut out: Vec<bf16> = Vec::new();
            let (shard, spelled) = self.find(name, shape)?;
            shard.append_bf16(spelled, &mut out)?;
            return Ok(Tensor::from_vec(out, shape, device)?);
        }
        Ok(Tensor::from_vec(self.values(name, shape)?, shape, device)?.to_dtype(dtype)?)
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<(&SafeTensors, &str), ModelError> {
        let Source::Files { shards, places } = &self.source else {
            return Err(ModelError::tensor(name, "random weights have no file"));
        };
        let Some((number, spelled)) = places.get(name) else {
            return Err(ModelError::tensor(name, "the checkpoint does not have it"));
        };
        let shard = &shards[*number];
        match shard.entry(spelled) {
            Some(entry) if entry.shape == shape => Ok((shard, spelled)),
            entry => {
                let got = entry.map(|entry| entry.shape.clone()).unwrap_or_default();
                let file = shard.name();
                Err(ModelError::tensor(
                    spelled,
                    format!("has shape {got:?} in {file}, config.json asks for {shape:?}"),
                ))
            }
        }
    }
}

/// The shards that the index names, or the single file.
fn shard_names(files: &ModelFiles) -> Result<Vec<String>, ModelError> {
    let Some(index) = files.read(INDEX)? else { return Ok(vec![SINGLE.to_owned()]) };
    let index: Index = serde_json::from_slice(&index).map_err(|error| ModelError::broken(INDEX, error))?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
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

/// Files that hold the weights, for the revision's hash.
pub(crate) fn weight_files(files: &ModelFiles) -> Result<Vec<String>, ModelError> {
    shard_names(files)
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

/// Norms near 1, everything else uniform with the spread of 1/√inputs.
fn random_values(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let hash = blake3::hash(format!("{seed} {name}").as_bytes());
    let mut generator = ChaCha8Rng::from_seed(*hash.as_bytes());
    let count: usize = shape.iter().product();
    let norm = name.contains("norm") || name.contains("ln_q");
    let inputs: usize = shape.iter().skip(1).product();
    let spread = if shape.len() > 1 { (3.0 / inputs as f32).sqrt() } else { 0.1 };
    let centre = if norm { 1.0 } else { 0.0 };
    (0..count).map(|_| centre + generator.random_range(-spread..spread)).collect()
}
