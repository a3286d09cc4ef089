//! Lines that lie in an object: read in the background, so that nobody has to hold a connection for a million of them.
//!
//! The ledger remembers the manifest from the request until the batch is sealed, and whoever reads holds it for a time
//! only: when a server dies in the middle, any other, or the same one when it is back, reads the manifest again from its
//! start. Lines that are jobs already are found again and make no second ones.

use std::time::Duration;

use futures::StreamExt as _;
use object_store::ObjectStoreExt as _;
use spectemp_store::{BatchManifest, ObjectLocation, location};
use spectemp_types::VideoUri;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    error::ApiError,
    intake::{Defaults, Taker},
    shape::Intake,
    state::AppState,
    video,
};

/// Manifests that one server reads at once.
const AT_ONCE: usize = 4;
/// Looks for manifests that nobody reads any more, per time of a hold; those of this server's own requests begin at once.
const LOOKS: u32 = 12;
/// Readings that may fail before the batch is sealed with what it has.
const MOST_TRIES: u32 = 6;
/// Readings that may end with their server: then the manifest is taken for their cause.
const MOST_DEATHS: u32 = 20;
/// The wait after the first reading that failed; it doubles.
const AGAIN: Duration = Duration::from_secs(10);

/// Where the manifest lies, if the server may open it.
pub(crate) fn locate(text: &str, state: &AppState) -> Result<ObjectLocation, ApiError> {
    let uri = VideoUri::parse(text)?;
    if uri.is_path() && !text.starts_with('/') {
        return Err(ApiError::Invalid(format!(
            "manifest {text:?} is relative: give a URI or an absolute path"
        )));
    }
    let uri = location::normalize(&uri)?;
    video::refuse_secrets(&uri)?;
    Ok(state.locations.resolve(&uri)?)
}

/// Looks at it, so that one that is missing or too large is refused at once.
pub(crate) async fn check(location: &ObjectLocation, most: u64) -> Result<(), ApiError> {
    let uri = &location.uri;
    match location.store.head(&location.path).await {
        Ok(meta) if meta.size > most => Err(too_large(most)),
        Ok(_) => Ok(()),
        Err(object_store::Error::NotFound { .. }) => Err(missing(uri)),
        Err(error) => {
            tracing::warn!(error = %error, manifest.uri = %uri, "a manifest cannot be read");
            Err(ApiError::Invalid(format!("manifest {uri} cannot be read by this server")))
        }
    }
}

fn missing(uri: &VideoUri) -> ApiError {
    ApiError::Invalid(format!("manifest {uri} does not exist"))
}

fn too_large(most: u64) -> ApiError {
    ApiError::TooLarge(format!("the manifest is larger than {most} bytes: split it"))
}

/// Reads manifests until `stop`: those of this server's requests at once, those that others left when they may be taken.
pub(crate) async fn read_all(state: AppState, stop: CancellationToken) {
    // Dropped with this future, as when the process dies: then the holds lapse.
    let mut readings = JoinSet::new();
    let hold = state.settings.manifest_hold;
    loop {
        while let Some(ended) = readings.try_join_next() {
            tell_panic(ended);
        }
        while readings.len() < AT_ONCE {
            let holder = Uuid::now_v7().to_string();
            match state.store.ledger().take_manifest(&holder, hold).await {
                Ok(Some(manifest)) => {
                    readings.spawn(read_until(state.clone(), manifest, stop.clone()));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(error = %error, "manifests cannot be looked for");
                    break;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = state.manifests.notified() => {}
            Some(ended) = readings.join_next() => tell_panic(ended),
            () = tokio::time::sleep(hold / LOOKS) => {}
        }
    }
    while let Some(ended) = readings.join_next().await {
        tell_panic(ended);
    }
}

fn tell_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = %error, "the reading of a manifest broke");
    }
}

async fn read_until(state: AppState, manifest: BatchManifest, stop: CancellationToken) {
    let stopped = tokio::select! {
        biased;
        () = stop.cancelled() => true,
        () = read(&state, &manifest) => false,
        () = lose(&state, &manifest) => false,
    };
    if stopped && let Err(error) = state.store.ledger().let_manifest_go(&manifest).await {
        tracing::debug!(error = %error, "a manifest is let go when its hold lapses");
    }
}

/// Keeps hold of the manifest until another process has it, or it is dropped.
async fn lose(state: &AppState, manifest: &BatchManifest) {
    let hold = state.settings.manifest_hold;
    loop {
        tokio::time::sleep(hold / 4).await;
        match state.store.ledger().hold_manifest(manifest, hold).await {
            Ok(true) => {}
            Ok(false) => return tell_lost(manifest),
            Err(error) => tracing::warn!(error = %error, "a manifest's hold cannot be renewed"),
        }
    }
}

fn tell_lost(manifest: &BatchManifest) {
    tracing::info!(
        batch.name = manifest.batch,
        "a manifest was taken over, or its batch cancelled, while it was read"
    );
}

/// Takes all lines and seals the batch; or puts the manifest off, or gives it up.
async fn read(state: &AppState, manifest: &BatchManifest) {
    let BatchManifest { tenant, batch, .. } = manifest;
    let mut taker = match serde_json::from_str::<Defaults>(&manifest.defaults) {
        Ok(defaults) => Taker::new(state.clone(), tenant, batch, defaults, Some(manifest.clone())),
        Err(error) => {
            tracing::error!(batch.name = batch, error = %error, "the settings of a manifest cannot be read back");
            return;
        }
    };
    let sealed = match take(state, manifest, &mut taker).await {
        Ok(()) if taker.is_lost() => return tell_lost(manifest),
        Ok(()) => taker.seal().await,
        Err(error) => end_early(state, manifest, taker, &error).await,
    };
    match sealed {
        Ok(intake) => tell(batch, intake),
        // The hold lapses, and the manifest comes again.
        Err(error) => tracing::error!(batch.name = batch, error = %error, "a batch cannot be sealed"),
    }
}

fn tell(batch: &str, intake: Option<Intake>) {
    let Some(Intake { submitted, existing, bad_lines, .. }) = intake else { return };
    tracing::info!(
        batch.name = batch,
        jobs.submitted = submitted,
        jobs.existing = existing,
        lines.bad = bad_lines,
        "a manifest was read"
    );
}

/// Takes the lines, as long as the manifest is this process's.
async fn take(state: &AppState, manifest: &BatchManifest, taker: &mut Taker) -> Result<(), ApiError> {
    let most = state.settings.batch_bytes;
    if manifest.tries > MOST_DEATHS {
        return Err(ApiError::TooLarge(format!("{MOST_DEATHS} readings of the manifest broke: split it")));
    }
    let location = locate(&manifest.uri, state)?;
    let mut object = match location.store.get(&location.path).await {
        Ok(object) => object.into_stream(),
        Err(object_store::Error::NotFound { .. }) => return Err(missing(&location.uri)),
        Err(error) => return Err(broke_off(&error)),
    };
    let mut bytes = 0;
    while let Some(piece) = object.next().await {
        let piece = piece.map_err(|error| broke_off(&error))?;
        bytes += piece.len() as u64;
        if bytes > most {
            return Err(too_large(most));
        }
        taker.push(&piece).await?;
        if taker.is_lost() {
            break;
        }
    }
    Ok(())
}

/// What object stores say may hold names that are not the caller's business.
fn broke_off(error: &object_store::Error) -> ApiError {
    tracing::warn!(error = %error, "a manifest broke off");
    ApiError::Unavailable("the manifest broke off: submit it again".to_owned())
}

/// Puts the manifest off after a fault that may pass; otherwise the batch ends with what it has, and the reason stands
/// among its bad lines.
async fn end_early(
    state: &AppState,
    manifest: &BatchManifest,
    mut taker: Taker,
    error: &ApiError,
) -> Result<Option<Intake>, ApiError> {
    let batch = &manifest.batch;
    let final_one = matches!(error, ApiError::TooLarge(_) | ApiError::Invalid(_));
    if final_one || manifest.tries >= MOST_TRIES {
        tracing::error!(batch.name = batch, error = %error, "a manifest was not read to its end");
        taker.note(error.to_string());
        return taker.seal().await;
    }
    let after = AGAIN * 2_u32.pow(manifest.tries.saturating_sub(1).min(MOST_TRIES));
    tracing::warn!(
        batch.name = batch,
        error = %error,
        wait_ms = after.as_millis() as u64,
        "a manifest is read again later"
    );
    // What has gathered is not lost: it comes again.
    state.store.ledger().put_manifest_off(manifest, &error.to_string(), after).await?;
    Ok(None)
}
