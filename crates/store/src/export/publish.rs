//! A file on its way to its place: written aside, then put there in one step.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use object_store::{ObjectStore, PutPayload, buffered::BufWriter as ObjectWriter};
use serde::Serialize;
use spectemp_types::VideoUri;
use tokio::io::AsyncWriteExt;

use crate::{Locations, StoreError, location};

/// Bytes per part of an upload.
const PART: usize = 8 << 20;

/// See the module.
pub(super) struct Draft {
    target: VideoUri,
    file: BufWriter<File>,
    aside: Aside,
}

enum Aside {
    /// Next to the target, under one fixed name: what a killed process leaves is overwritten by the next.
    Beside { path: PathBuf, target: PathBuf },
    /// In the system's folder for temporary files, removed when dropped.
    Temporary(tempfile::TempPath),
}

impl Draft {
    pub(super) fn begin(target: VideoUri) -> Result<Self, StoreError> {
        let Some(local) = location::local_path(&target)? else {
            let (file, path) = tempfile::NamedTempFile::new()
                .map_err(StoreError::io("make", &std::env::temp_dir()))?
                .into_parts();
            return Ok(Self { target, file: BufWriter::new(file), aside: Aside::Temporary(path) });
        };
        let folder = local.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(StoreError::io("make folder", folder))?;
        let name = local.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = folder.join(format!(".{name}.part"));
        let file = File::create(&path).map_err(StoreError::io("write", &path))?;
        Ok(Self { target, file: BufWriter::new(file), aside: Aside::Beside { path, target: local } })
    }

    /// Appends `value` as one line of JSON.
    pub(super) fn line(&mut self, value: &impl Serialize) -> Result<(), StoreError> {
        serde_json::to_writer(&mut self.file, value)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(self.fail("write"))
    }

    /// Puts the file in its place.
    pub(super) async fn publish(mut self, locations: &Locations) -> Result<(), StoreError> {
        self.file.flush().map_err(self.fail("write"))?;
        match &self.aside {
            Aside::Beside { path, target } => self
                .file
                .get_ref()
                .sync_all()
                .and_then(|()| fs::rename(path, target))
                .map_err(self.fail("write")),
            Aside::Temporary(path) => {
                let mut file = File::open(path).map_err(StoreError::io("read", path))?;
                upload(&mut file, &self.target, locations).await
            }
        }
    }

    fn fail(&self, what: &'static str) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = match &self.aside {
            Aside::Beside { target, .. } => target.clone(),
            Aside::Temporary(path) => path.to_path_buf(),
        };
        StoreError::io(what, &path)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// One put for what fits a part, else a multipart upload: either way the object appears whole or not at all.
async fn upload(file: &mut File, target: &VideoUri, locations: &Locations) -> Result<(), StoreError> {
    let location = locations.resolve(target)?;
    let mut part = vec![0; PART];
    let mut length = read_part(file, &mut part, target)?;
    if length < PART {
        let payload = PutPayload::from(part[..length].to_vec());
        location
            .store
            .put_opts(&location.path, payload, Default::default())
            .await
            .map_err(StoreError::object(target))?;
        return Ok(());
    }
    let mut writer = ObjectWriter::with_capacity(location.store, location.path, PART);
    let failed = |error: io::Error| StoreError::Object {
        key: target.to_string(),
        cause: location::redacted_cause(&error),
    };
    while length > 0 {
        if let Err(error) = writer.write_all(&part[..length]).await {
            let _ = writer.abort().await;
            return Err(failed(error));
        }
        length = read_part(file, &mut part, target)?;
    }
    writer.shutdown().await.map_err(failed)
}

/// Fills `part` as far as the file goes.
fn read_part(file: &mut File, part: &mut [u8], target: &VideoUri) -> Result<usize, StoreError> {
    let mut length = 0;
    while length < part.len() {
        match file
            .read(&mut part[length..])
            .map_err(StoreError::io("read back", Path::new(&target.redacted())))?
        {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}
