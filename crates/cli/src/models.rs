//! Which models a command uses: from flags, environment and file to loaded target and draft.

mod server;

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use spectemp_engine::Vlm;
use spectemp_model::{
    DeviceThread, LoadOptions, ModelFiles, ProposerChoice, QwenVlm, Speculation,
    hub::{self, HubOptions, ModelSource},
};
use spectemp_store::Locations;
use spectemp_types::VideoUri;

use crate::{
    args::{DeviceArgs, ModelArgs},
    context::Context,
    embeddings,
    output::Usage,
};

pub(crate) use server::refuse_files;

/// The setting that names the target.
pub(crate) const TARGET: &str = "target";
/// The setting that names the draft.
pub(crate) const DRAFT: &str = "draft";

/// Target and draft, ready to answer.
#[derive(Clone)]
pub(crate) struct LoadedModels {
    /// The target.
    pub(crate) target: Arc<dyn Vlm>,
    /// The draft, where one was named.
    pub(crate) draft: Option<Arc<dyn Vlm>>,
}

/// Loads what flags, environment or file name.
///
/// # Errors
/// No target; no draft although `needs_draft`; a model that cannot be found or loaded.
pub(crate) async fn load(
    args: &ModelArgs,
    needs_draft: bool,
    context: &Context,
) -> anyhow::Result<LoadedModels> {
    let (target, draft) = named(args, needs_draft, context)?;
    let mut opening = Opening::new(args, context);
    let loaded_target = opening.open_target(&target, draft.as_deref()).await?;
    let loaded_draft = match draft {
        Some(name) if name == target && server::same_key(&target, context) => {
            Some(Arc::clone(&loaded_target))
        }
        Some(name) => Some(opening.open(&name, DRAFT).await?),
        None => None,
    };
    Ok(LoadedModels { target: loaded_target, draft: loaded_draft })
}

/// Opens models by their names. Those that run here share one device, which is started for the first of them.
pub(crate) struct Opening<'a> {
    args: &'a ModelArgs,
    context: &'a Context,
    caches: bool,
    device: Option<Arc<DeviceThread>>,
}

impl<'a> Opening<'a> {
    /// With what is kept on disk behind the device.
    pub(crate) fn new(args: &'a ModelArgs, context: &'a Context) -> Self {
        Self { args, context, caches: true, device: None }
    }

    /// For a look at a model: nothing on disk is touched.
    pub(crate) fn without_caches(args: &'a ModelArgs, context: &'a Context) -> Self {
        Self { caches: false, ..Self::new(args, context) }
    }

    /// Opens the target or the draft: on its server, or loaded into this process.
    ///
    /// # Errors
    /// A model that cannot be found, loaded or reached.
    pub(crate) async fn open(&mut self, name: &str, role: &str) -> anyhow::Result<Arc<dyn Vlm>> {
        if let Some(address) = server::address(name)? {
            return server::open(&address, role, self.args, self.context).await;
        }
        let options = load_options(&self.args.device, self.context)?;
        let device = self.device(&options)?;
        open(&device, locate(name, self.context).await?, options).await
    }

    /// Opens the target, with what guesses for it where that is wanted.
    async fn open_target(&mut self, name: &str, draft: Option<&str>) -> anyhow::Result<Arc<dyn Vlm>> {
        let speculation = speculation(self.args, self.context)?;
        if speculation.proposer == ProposerChoice::Off {
            return self.open(name, TARGET).await;
        }
        if let Some(address) = server::address(name)? {
            return Err(Usage(format!(
                "--speculate {}: {address} decodes on its server, where nothing here can guess for it",
                speculation.proposer
            ))
            .into());
        }
        let options = load_options(&self.args.device, self.context)?;
        let device = self.device(&options)?;
        let files = locate(name, self.context).await?;
        let guessing = match draft {
            Some(draft) if speculation.proposer.needs_draft() => Some(locate(draft, self.context).await?),
            _ => None,
        };
        open_speculating(&device, (files, guessing), options, speculation).await
    }

    fn device(&mut self, options: &LoadOptions) -> anyhow::Result<Arc<DeviceThread>> {
        let device = match &self.device {
            Some(device) => Arc::clone(device),
            None if self.caches => start_device(options, self.context)?,
            None => DeviceThread::start(options, None)?,
        };
        self.device = Some(Arc::clone(&device));
        Ok(device)
    }
}

/// The names of target and draft.
///
/// # Errors
/// A missing one, with what to pass.
pub(crate) fn named(
    args: &ModelArgs,
    needs_draft: bool,
    context: &Context,
) -> anyhow::Result<(String, Option<String>)> {
    let how = "a folder in the Hugging Face layout of Qwen2.5-VL, hf://owner/name[@revision] or \
               openai+http://HOST:PORT/v1#MODEL";
    let target = context.config.setting(TARGET, args.target.clone()).value;
    let target = target.ok_or_else(|| {
        Usage(format!(
            "no target model: pass --target, {how} (or set SPECTEMP_TARGET or `target` in the settings file)"
        ))
    })?;
    let draft = context.config.setting(DRAFT, args.draft.clone()).value;
    server::address(&target)?;
    draft.as_deref().map(server::address).transpose()?;
    if needs_draft && draft.is_none() {
        return Err(Usage(format!(
            "no draft model, which the strategy spectemp needs: pass --draft, {how} (or choose --set strategy=uniform \
             or target-uniform)"
        ))
        .into());
    }
    Ok((target, draft))
}

/// The thread that target and draft share, with what is kept on disk behind it.
pub(crate) fn start_device(options: &LoadOptions, context: &Context) -> anyhow::Result<Arc<DeviceThread>> {
    Ok(DeviceThread::start(options, embeddings::tier(context)?)?)
}

/// Loads one model.
pub(crate) async fn open(
    device: &Arc<DeviceThread>,
    files: ModelFiles,
    options: LoadOptions,
) -> anyhow::Result<Arc<dyn Vlm>> {
    let device = Arc::clone(device);
    let loaded = tokio::task::spawn_blocking(move || QwenVlm::load_on(&device, &files, &options)).await?;
    Ok(Arc::new(loaded?))
}

/// Loads the target with what guesses for it.
async fn open_speculating(
    device: &Arc<DeviceThread>,
    (files, draft): (ModelFiles, Option<ModelFiles>),
    options: LoadOptions,
    speculation: Speculation,
) -> anyhow::Result<Arc<dyn Vlm>> {
    let device = Arc::clone(device);
    let load = move || {
        let target = QwenVlm::load_on(&device, &files, &options)?;
        target.speculating(speculation, draft.as_ref(), &options)
    };
    Ok(Arc::new(tokio::task::spawn_blocking(load).await??))
}

/// Who guesses for the target.
fn speculation(args: &ModelArgs, context: &Context) -> anyhow::Result<Speculation> {
    let text = context.config.setting("speculate", args.speculate.clone()).value.unwrap_or_default();
    let proposer = text.parse::<ProposerChoice>().map_err(|cause| Usage(format!("--speculate: {cause}")))?;
    Ok(Speculation::by(proposer))
}

/// Device, dtype, threads and memory in force.
pub(crate) fn load_options(args: &DeviceArgs, context: &Context) -> anyhow::Result<LoadOptions> {
    let text = |name: &str, flag: &Option<String>| {
        context.config.setting(name, flag.clone()).value.unwrap_or_default()
    };
    let usage = |cause: String| anyhow::Error::from(Usage(cause));
    Ok(LoadOptions {
        device: text("device", &args.device).parse().map_err(|cause| usage(format!("--device: {cause}")))?,
        dtype: text("dtype", &args.dtype).parse().map_err(|cause| usage(format!("--dtype: {cause}")))?,
        threads: Some(context.config.number("threads", args.threads.map(|n| n as u64), 1)? as usize),
        kv_cache_bytes: kv_cache_bytes(args, context)?,
        ..LoadOptions::default()
    })
}

/// Memory for keys and values, where it is set.
fn kv_cache_bytes(args: &DeviceArgs, context: &Context) -> anyhow::Result<Option<usize>> {
    let Some(text) = context.config.setting("kv_cache", args.kv_cache.clone()).value else { return Ok(None) };
    let bytes = size(&text).ok_or_else(|| {
        Usage(format!("kv_cache is {text:?}, but must be a size such as 512M, 4G or a number of bytes"))
    })?;
    Ok(Some(bytes))
}

/// Bytes of a size such as `512M` or `4G`, in powers of 1024.
fn size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// Where pulled models lie.
pub(crate) fn cache_dir(context: &Context) -> anyhow::Result<PathBuf> {
    Ok(context.home_dir()?.join("cache").join("models"))
}

/// The files of a model by its name; a model of a hub is fetched unless it was pulled before.
pub(crate) async fn locate(name: &str, context: &Context) -> anyhow::Result<ModelFiles> {
    refuse_files(name)?;
    if in_object_storage(name) {
        let dir = objects_dir(name, context)?;
        let dir = if dir.is_dir() { dir } else { pull_objects(name, context).await? };
        return Ok(ModelFiles::folder(dir).with_name(name));
    }
    let source: ModelSource = name.parse().map_err(|cause| Usage(format!("model {name:?}: {cause}")))?;
    let options = hub_options(context)?;
    let files =
        tokio::task::spawn_blocking(move || hub::resolve(&source, &options, &mut Bar::default())).await?;
    files.with_context(|| format!("model {name}"))
}

/// True for a URI of object storage.
pub(crate) fn in_object_storage(name: &str) -> bool {
    name.contains("://") && !name.starts_with("hf://") && !server::is_meant(name)
}

/// Where a model of object storage is kept.
fn objects_dir(name: &str, context: &Context) -> anyhow::Result<PathBuf> {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Ok(cache_dir(context)?.join("objects").join(plain))
}

/// Fetches a checkpoint folder of object storage, whole or not at all, and says where it is kept.
pub(crate) async fn pull_objects(name: &str, context: &Context) -> anyhow::Result<PathBuf> {
    let dir = objects_dir(name, context)?;
    let uri = VideoUri::parse(name).map_err(|cause| Usage(format!("model {name:?}: {cause}")))?;
    let files = Locations::default().download_folder(&uri, &dir, hub::is_wanted).await?;
    eprintln!("fetched {files} files of {uri}");
    Ok(dir)
}

/// How the hub is asked.
pub(crate) fn hub_options(context: &Context) -> anyhow::Result<HubOptions> {
    let token = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty());
    let offline = std::env::var("HF_HUB_OFFLINE").is_ok_and(|flag| !matches!(flag.as_str(), "" | "0"));
    Ok(HubOptions { cache: cache_dir(context)?, endpoint: None, token, offline })
}

/// A progress bar on stderr, where that is a terminal.
#[derive(Default)]
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
}

impl hub::Progress for Bar {
    fn file(&mut self, name: &str, bytes: u64) {
        let bar = ProgressBar::new(bytes).with_message(name.to_owned());
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        {
            bar.set_style(style);
        }
        self.bar = Some(bar);
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn done(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("512M"), Some(512 << 20));
        assert_eq!(size("2gib"), Some(2 << 30));
        for wrong in ["", "G", "1.5G", "4X", "-1", "99999999999G"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }
}
