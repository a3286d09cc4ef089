//! Lines that lie in an object: read in the background, so that nobody has to hold a connection for a million of them.
//! If the server dies meanwhile the batch stays open; the same request again finds the jobs that are there already.

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use object_store::ObjectStoreExt as _;
use spectemp_store::{ObjectLocation, location};
use spectemp_types::VideoUri;

use crate::{error::ApiError, intake::Taker, state::AppState, video};

/// The bytes of a manifest.
pub(crate) type Object = BoxStream<'static, object_store::Result<Bytes>>;

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

/// Begins to read it, so that one that is missing is refused at once.
pub(crate) async fn open(location: &ObjectLocation) -> Result<Object, ApiError> {
    let uri = &location.uri;
    match location.store.get(&location.path).await {
        Ok(object) => Ok(object.into_stream()),
        Err(object_store::Error::NotFound { .. }) => {
            Err(ApiError::Invalid(format!("manifest {uri} does not exist")))
        }
        Err(error) => {
            tracing::warn!(error = %error, manifest.uri = %uri, "a manifest cannot be read");
            Err(ApiError::Invalid(format!("manifest {uri} cannot be read by this server")))
        }
    }
}

/// Takes all lines and seals the batch.
pub(crate) async fn take(mut taker: Taker, object: Object, most: u64) {
    let name = taker.batch().to_owned();
    match read(&mut taker, object, most).await {
        Ok(()) => match taker.seal().await {
            Ok(intake) => tracing::info!(
                batch.name = name,
                jobs.submitted = intake.submitted,
                lines.bad = intake.bad_lines,
                "a manifest was read"
            ),
            Err(error) => tracing::error!(batch.name = name, error = %error, "a batch cannot be sealed"),
        },
        Err(error) => {
            tracing::error!(batch.name = name, error = %error, "a manifest was not read to its end");
            // The batch ends with what it has; the reason stands among its bad lines.
            taker.note(error.to_string());
            if let Err(error) = taker.seal().await {
                tracing::error!(batch.name = name, error = %error, "a batch cannot be sealed");
            }
        }
    }
}

async fn read(taker: &mut Taker, mut object: Object, most: u64) -> Result<(), ApiError> {
    let mut bytes = 0;
    while let Some(piece) = object.next().await {
        let piece =
            piece.map_err(|_| ApiError::Invalid("the manifest broke off: submit it again".to_owned()))?;
        bytes += piece.len() as u64;
        if bytes > most {
            return Err(ApiError::TooLarge(format!("the manifest is larger than {most} bytes: split it")));
        }
        taker.push(&piece).await?;
    }
    Ok(())
}
