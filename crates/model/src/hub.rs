//! Where a model comes from: a folder, or a repository of the Hugging Face hub, which is kept in a cache for later use
//! without a network. Blocking: call it where that is allowed.
//!
//! A pull pins the revision's commit first and takes every file from that commit, so that a push in between cannot mix two
//! states. Only a finished pull is marked complete; [`resolve`] uses a complete one without asking the hub.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use crate::ModelError;
use crate::files::ModelFiles;

const HUGGING_FACE: &str = "https://huggingface.co";
const MAIN: &str = "main";

/// Lies in a snapshot whose files are all there.
const COMPLETE: &str = ".spectemp-complete";

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder in the Hugging Face layout, or a GGUF file in one.
    Folder(PathBuf),
    /// `hf://owner/name` or `hf://owner/name@revision`.
    Hub {
        /// `owner/name`
        repository: String,
        /// Branch, tag or commit; none is `main`.
        revision: Option<String>,
    },
}

impl FromStr for ModelSource {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason: &str| ModelError::Source { model: text.to_owned(), reason: reason.to_owned() };
        let Some(rest) = text.strip_prefix("hf://") else {
            return match text {
                "" => Err(wrong("it is empty: name a folder or hf://owner/name")),
                _ if text.contains("://") => {
                    Err(wrong("only folders and hf://owner/name[@revision] are understood here"))
                }
                _ => Ok(Self::Folder(text.into())),
            };
        };
        let (repository, revision) = match rest.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (rest, None),
        };
        let plain = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
        };
        if !matches!(repository.split('/').collect::<Vec<_>>()[..], [owner, name] if plain(owner) && plain(name))
        {
            return Err(wrong("hf:// takes owner/name, with an optional @revision"));
        }
        // A revision becomes a path in the cache.
        if revision.is_some_and(|revision| !revision.split('/').all(plain)) {
            return Err(wrong("the revision is no branch, tag or commit"));
        }
        Ok(Self::Hub { repository: repository.to_owned(), revision: revision.map(str::to_owned) })
    }
}

/// How to reach the hub.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Folder of the cache, in the layout that other Hugging Face programs share.
    pub cache: PathBuf,
    /// Address of the hub; none is `HF_ENDPOINT`, or huggingface.co.
    pub endpoint: Option<String>,
    /// Access token for private and gated repositories.
    pub token: Option<String>,
    /// Never asks the hub.
    pub offline: bool,
}

impl HubOptions {
    /// The hub that the environment names, without a token.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self { cache: cache.into(), endpoint: None, token: None, offline: false }
    }

    fn endpoint(&self) -> String {
        let named = self.endpoint.clone().or_else(|| std::env::var("HF_ENDPOINT").ok());
        let endpoint =
            named.filter(|endpoint| !endpoint.is_empty()).unwrap_or_else(|| HUGGING_FACE.to_owned());
        endpoint.trim_end_matches('/').to_owned()
    }
}

/// Hears how a download goes.
pub trait Progress {
    /// A file begins; `bytes` is its size.
    fn file(&mut self, name: &str, bytes: u64);
    /// So many more bytes have come.
    fn advance(&mut self, bytes: u64);
    /// The file is there.
    fn done(&mut self);
}

impl Progress for () {
    fn file(&mut self, _name: &str, _bytes: u64) {}
    fn advance(&mut self, _bytes: u64) {}
    fn done(&mut self) {}
}

/// The files of a model: the folder itself, a pulled repository from the cache, or a fresh pull.
///
/// # Errors
/// [`ModelError::Source`] with what to do.
pub fn resolve(
    source: &ModelSource,
    options: &HubOptions,
    progress: &mut dyn Progress,
) -> Result<ModelFiles, ModelError> {
    match source {
        ModelSource::Folder(path) => folder(path),
        ModelSource::Hub { repository, revision } => {
            let repo = repo(repository, revision.as_deref());
            if let Some(found) = cached(&repo, repository, options) {
                return Ok(found);
            }
            if options.offline {
                let reason = "it has not been pulled yet: run `spectemp model pull` where there is a network";
                return Err(fail(repository, reason));
            }
            download(repo, repository, options, progress)
        }
    }
}

/// As [`resolve`], but asks the hub again, so that a moved branch is followed. What is there already is not fetched twice.
///
/// # Errors
/// As [`resolve`].
pub fn pull(
    source: &ModelSource,
    options: &HubOptions,
    progress: &mut dyn Progress,
) -> Result<ModelFiles, ModelError> {
    match source {
        ModelSource::Folder(path) => folder(path),
        ModelSource::Hub { repository, .. } if options.offline => {
            Err(fail(repository, "a pull needs the network"))
        }
        ModelSource::Hub { repository, revision } => {
            download(repo(repository, revision.as_deref()), repository, options, progress)
        }
    }
}

/// Whether a checkpoint needs a file of this name (relative to its folder): for fetching one from anywhere.
pub fn is_wanted(name: &str) -> bool {
    const FILES: [&str; 9] = [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "chat_template.json",
        "prompts/target.jinja",
        "prompts/draft.jinja",
    ];
    let weights = name == "model.safetensors"
        || name == "model.safetensors.index.json"
        || (name.starts_with("model-") && name.ends_with(".safetensors") && !name.contains(['/', '\\']));
    weights || FILES.contains(&name)
}

fn folder(path: &Path) -> Result<ModelFiles, ModelError> {
    let files = ModelFiles::folder(path);
    if files.path().is_some_and(|folder| folder.join("config.json").is_file()) {
        return Ok(files);
    }
    let reason = match () {
        () if files.gguf().is_some() && path.is_file() => {
            "no config.json lies beside it: put the small files of the Hugging Face checkpoint there"
        }
        () if path.is_dir() => "the folder has no config.json",
        () => "there is no such folder",
    };
    Err(ModelError::Source { model: path.display().to_string(), reason: reason.to_owned() })
}

fn repo(repository: &str, revision: Option<&str>) -> Repo {
    Repo::with_revision(repository.to_owned(), RepoType::Model, revision.unwrap_or(MAIN).to_owned())
}

fn fail(repository: &str, reason: impl ToString) -> ModelError {
    ModelError::Source { model: format!("hf://{repository}"), reason: reason.to_string() }
}

fn cached(repo: &Repo, repository: &str, options: &HubOptions) -> Option<ModelFiles> {
    let cache = Cache::new(options.cache.clone());
    // A commit needs no reference: its snapshot is named after it.
    let by_commit = cache.repo(repo.clone()).pointer_path(repo.revision()).join(COMPLETE);
    let mark = if by_commit.is_file() { by_commit } else { cache.repo(repo.clone()).get(COMPLETE)? };
    Some(ModelFiles::folder(mark.parent()?).with_name(format!("hf://{repository}")))
}

fn download(
    repo: Repo,
    repository: &str,
    options: &HubOptions,
    progress: &mut dyn Progress,
) -> Result<ModelFiles, ModelError> {
    let endpoint = options.endpoint();
    let failed = |error: ApiError| fail(repository, explain(&error, &endpoint));
    let api = ApiBuilder::from_cache(Cache::new(options.cache.clone()))
        .with_endpoint(endpoint.clone())
        .with_token(options.token.clone())
        .with_progress(false)
        .with_retries(3)
        .build()
        .map_err(failed)?;
    let info = api.repo(repo.clone()).info().map_err(failed)?;
    let names: Vec<String> =
        info.siblings.into_iter().map(|file| file.rfilename).filter(|name| is_wanted(name)).collect();
    if !names.iter().any(|name| name == "config.json") {
        return Err(fail(repository, "the repository has no config.json"));
    }
    let pinned = Repo::with_revision(repository.to_owned(), RepoType::Model, info.sha.clone());
    let cache = Cache::new(options.cache.clone());
    let files = api.repo(pinned.clone());
    for name in &names {
        let forward = Forward { progress: &mut *progress, begun: false };
        let failed = |error: ApiError| fail(repository, format!("{name}: {}", explain(&error, &endpoint)));
        let there = cache.repo(pinned.clone()).get(name).is_some();
        if !there {
            files.download_with_progress(name, forward).map_err(failed)?;
        }
    }
    let snapshot = cache.repo(pinned).pointer_path(&info.sha);
    let write = |error: std::io::Error| ModelError::Read { path: snapshot.clone(), source: error };
    std::fs::write(snapshot.join(COMPLETE), names.join("\n")).map_err(write)?;
    cache.repo(repo).create_ref(&info.sha).map_err(write)?;
    Ok(ModelFiles::folder(&snapshot).with_name(format!("hf://{repository}")))
}

fn explain(error: &ApiError, endpoint: &str) -> String {
    let text = error.to_string();
    let hint = match () {
        () if text.contains("401") || text.contains("403") => " (private or gated: pass a token)",
        () if text.contains("404") => " (no such repository or revision)",
        () => "",
    };
    format!("{endpoint} says: {text}{hint}")
}

/// hf-hub's progress, which announces each file twice.
struct Forward<'a> {
    progress: &'a mut dyn Progress,
    begun: bool,
}

impl hf_hub::api::Progress for Forward<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        if !self.begun {
            self.begun = true;
            self.progress.file(filename, size as u64);
        }
    }

    fn update(&mut self, size: usize) {
        self.progress.advance(size as u64);
    }

    fn finish(&mut self) {
        self.progress.done();
    }
}
