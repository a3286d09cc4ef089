//! Opens a video for commands that need no ledger.

use std::time::Duration;

use anyhow::Context as _;
use spectemp_store::Locations;
use spectemp_types::VideoUri;
use spectemp_video::{OpenOptions, Video, VideoObject};

use crate::{context::Context, output::Usage};

/// Opens the video at `uri`.
pub(crate) async fn open_video(uri: &str, allow_scan: bool, context: &Context) -> anyhow::Result<Video> {
    let uri = VideoUri::parse(uri).map_err(|cause| Usage(cause.to_string()))?;
    let location = Locations::default().resolve(&uri).with_context(|| format!("{uri} cannot be located"))?;
    let object = VideoObject { store: location.store, path: location.path, uri };
    let timeout = Duration::from_secs(context.config.number("timeout_s", None, 1)?);
    let options = OpenOptions { allow_scan, timeout, ..OpenOptions::default() };
    Ok(Video::open(object, options, None).await?)
}
