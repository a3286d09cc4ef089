//! Fetches a folder of object storage: for checkpoints, which must lie on the local disk. Videos never go this way.

use std::{fs, path::Path};

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use spectemp_types::VideoUri;
use tokio::io::AsyncWriteExt as _;

use crate::{Locations, StoreError};

impl Locations {
    /// Fetches the objects under `uri` for whose names (relative to it) `wanted` says so into the folder `dir`, which
    /// appears whole or not at all. Returns their number.
    ///
    /// # Errors
    /// A location that cannot be used, a failing read, a full disk, or a prefix that holds no wanted object.
    pub async fn download_folder(
        &self,
        uri: &VideoUri,
        dir: &Path,
        wanted: fn(&str) -> bool,
    ) -> Result<u64, StoreError> {
        let place = self.resolve(uri)?;
        let listed = place.store.list(Some(&place.path)).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(StoreError::object(uri))?;
        let parent = dir.parent().unwrap_or(dir);
        fs::create_dir_all(parent).map_err(StoreError::io("make folder", parent))?;
        let temp = tempfile::tempdir_in(parent).map_err(StoreError::io("make a folder in", parent))?;
        let mut files = 0;
        for object in listed {
            let Some(parts) = object.location.prefix_match(&place.path) else { continue };
            let name = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            if !wanted(&name) {
                continue;
            }
            let path = temp.path().join(&name);
            let folder = path.parent().unwrap_or(temp.path());
            fs::create_dir_all(folder).map_err(StoreError::io("make folder", folder))?;
            let got = place.store.get(&object.location).await.map_err(StoreError::object(&name))?;
            let mut bytes = got.into_stream();
            let mut file = tokio::fs::File::create(&path).await.map_err(StoreError::io("make", &path))?;
            while let Some(chunk) = bytes.next().await {
                let chunk = chunk.map_err(StoreError::object(&name))?;
                file.write_all(&chunk).await.map_err(StoreError::io("write", &path))?;
            }
            file.sync_all().await.map_err(StoreError::io("write", &path))?;
            files += 1;
        }
        if files == 0 {
            return Err(StoreError::object(uri)(object_store::Error::NotFound {
                path: uri.redacted(),
                source: "no checkpoint file (config.json, *.safetensors …) lies under it".into(),
            }));
        }
        if dir.exists() {
            fs::remove_dir_all(dir).map_err(StoreError::io("replace", dir))?;
        }
        let temp = temp.keep();
        fs::rename(&temp, dir).map_err(StoreError::io("move into place", dir))?;
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_arrives_whole_and_without_what_is_not_wanted() {
        let from = tempfile::tempdir().unwrap();
        fs::create_dir_all(from.path().join("m/prompts")).unwrap();
        for name in ["m/config.json", "m/prompts/target.jinja", "m/readme.md"] {
            fs::write(from.path().join(name), name).unwrap();
        }
        let to = tempfile::tempdir().unwrap();
        let uri = VideoUri::parse(&format!("file://{}/m", from.path().display())).unwrap();
        let dir = to.path().join("kept/m");
        let wanted = |name: &str| !name.ends_with(".md");
        assert_eq!(Locations::default().download_folder(&uri, &dir, wanted).await.unwrap(), 2);
        assert_eq!(fs::read_to_string(dir.join("prompts/target.jinja")).unwrap(), "m/prompts/target.jinja");
        assert!(!dir.join("readme.md").exists());
    }

    #[tokio::test]
    async fn a_prefix_without_a_checkpoint_is_named() {
        let from = tempfile::tempdir().unwrap();
        let uri = VideoUri::parse(&format!("file://{}/nothing", from.path().display())).unwrap();
        let dir = from.path().join("kept");
        let error = Locations::default().download_folder(&uri, &dir, |_| true).await.unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
        assert!(!dir.exists());
    }
}
