//! Where the files of a checkpoint are: a folder in the Hugging Face layout, or bytes inside the program.
//!
//! A GGUF file may hold the language model's weights. All else (config, tokenizer, processor, templates) then lies beside
//! it in the same layout, and so does the vision tower: in safetensors, or in llama.cpp's second file, `mmproj*.gguf`.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ModelError;

/// The files of one checkpoint. Cheap to clone; nothing is read before it is asked for.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    name: String,
    place: Place,
    /// The language model's weights, where they are no safetensors.
    gguf: Option<String>,
}

#[derive(Clone, Debug)]
enum Place {
    Folder(PathBuf),
    Embedded(&'static [(&'static str, &'static [u8])]),
}

/// Small files are read whole; a JSON file larger than this is not one.
const MAX_SMALL_FILE: u64 = 256 << 20;

impl ModelFiles {
    /// A folder, or a GGUF file in one; the path is the checkpoint's name.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.display().to_string();
        let is_gguf = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) && !path.is_dir();
        let file = path.file_name().map(|file| file.to_string_lossy().into_owned());
        match (file, path.parent()) {
            (Some(file), Some(folder)) if is_gguf => {
                let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                Self { name, place: Place::Folder(folder.to_owned()), gguf: Some(file) }
            }
            _ => Self { name, place: Place::Folder(path), gguf: None },
        }
    }

    /// Files inside the program: relative names (`config.json`, `prompts/target.jinja`) and their bytes.
    pub fn embedded(name: &str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self { name: name.to_owned(), place: Place::Embedded(files), gguf: None }
    }

    /// The same files under another name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What traces call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder, where it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(path) => Some(path),
            Place::Embedded(_) => None,
        }
    }

    /// The GGUF file of the language model, where it is one.
    pub(crate) fn gguf(&self) -> Option<&str> {
        self.gguf.as_deref()
    }

    /// The GGUF file of the vision tower: the only one of its folder that is called mmproj.
    ///
    /// # Errors
    /// [`ModelError::Read`], and [`ModelError::Source`] where there are several.
    pub(crate) fn vision_gguf(&self) -> Result<Option<String>, ModelError> {
        let Some(folder) = self.path() else { return Ok(None) };
        let read = |source| ModelError::Read { path: folder.to_owned(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(read)? {
            let name = entry.map_err(read)?.file_name().to_string_lossy().into_owned();
            let plain = name.to_ascii_lowercase();
            if plain.contains("mmproj") && plain.ends_with(".gguf") {
                found.push(name);
            }
        }
        found.sort_unstable();
        match found.as_slice() {
            [] | [_] => Ok(found.pop()),
            several => {
                let reason =
                    format!("its folder has several vision towers, keep one: {}", several.join(", "));
                Err(ModelError::Source { model: self.name.clone(), reason })
            }
        }
    }

    /// A small file's bytes, none where it is absent.
    ///
    /// # Errors
    /// [`ModelError::Read`].
    pub fn read(&self, file: &str) -> Result<Option<Vec<u8>>, ModelError> {
        let Some(blob) = self.open(file)? else { return Ok(None) };
        if blob.len() > MAX_SMALL_FILE {
            return Err(ModelError::broken(file, format!("{} bytes are too many", blob.len())));
        }
        let mut bytes = vec![0; blob.len() as usize];
        blob.read_at(0, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// A small text file.
    ///
    /// # Errors
    /// [`ModelError::Read`], [`ModelError::Broken`] where it is not UTF-8.
    pub fn read_text(&self, file: &str) -> Result<Option<String>, ModelError> {
        let bytes = self.read(file)?;
        bytes
            .map(|bytes| String::from_utf8(bytes).map_err(|error| ModelError::broken(file, error)))
            .transpose()
    }

    /// A file that must be there.
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Read`].
    pub fn require(&self, file: &str) -> Result<Vec<u8>, ModelError> {
        self.read(file)?
            .ok_or_else(|| ModelError::Missing { model: self.name.clone(), file: file.to_owned() })
    }

    /// Opens a file for reading by position, none where it is absent.
    pub(crate) fn open(&self, file: &str) -> Result<Option<Blob>, ModelError> {
        match &self.place {
            Place::Embedded(files) => {
                Ok(files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| Blob::Static(bytes)))
            }
            Place::Folder(folder) => Blob::open(&folder.join(file)),
        }
    }
}

/// Bytes that are read by position. Plain reads, not a memory map: a file that shrinks while it is read is then an error
/// instead of a crash.
#[derive(Clone, Debug)]
pub(crate) enum Blob {
    Static(&'static [u8]),
    File { file: Arc<File>, path: PathBuf, len: u64 },
}

impl Blob {
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, ModelError> {
        let read = |source| ModelError::Read { path: path.to_owned(), source };
        match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(read(error)),
            Ok(file) => {
                let len = file.metadata().map_err(read)?.len();
                Ok(Some(Self::File { file: Arc::new(file), path: path.to_owned(), len }))
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Static(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Fills `buffer` from `offset` on.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ModelError> {
        let short =
            || ModelError::Read { path: "embedded file".into(), source: ErrorKind::UnexpectedEof.into() };
        let memory = match self {
            Self::Static(bytes) => *bytes,
            Self::File { file, path, .. } => {
                return file
                    .read_exact_at(buffer, offset)
                    .map_err(|source| ModelError::Read { path: path.clone(), source });
            }
        };
        let start = usize::try_from(offset).map_err(|_| short())?;
        let end = start.checked_add(buffer.len()).ok_or_else(short)?;
        buffer.copy_from_slice(memory.get(start..end).ok_or_else(short)?);
        Ok(())
    }
}
