//! Where a video, or any other location of a request, may lie. Everything is checked at submission, so that a job that
//! cannot work is refused to the one who can change it.

use spectemp_store::{Locations, location};
use spectemp_types::VideoUri;
use url::Url;

use crate::error::ApiError;

/// `video` of a job in the one form that the ledger uses: inside of `prefix` where there is one, otherwise absolute; on
/// the server's list in either case.
pub(crate) fn place(
    video: &str,
    prefix: Option<&VideoUri>,
    locations: &Locations,
) -> Result<VideoUri, ApiError> {
    let uri = match prefix {
        Some(prefix) => location::under(prefix, video)?,
        None => {
            let uri = VideoUri::parse(video)?;
            if uri.is_path() && !video.starts_with('/') {
                return Err(ApiError::Invalid(format!(
                    "video {video:?} is relative: give an absolute path or a URI, or a prefix for the whole batch (`videos`)"
                )));
            }
            location::normalize(&uri)?
        }
    };
    refuse_secrets(&uri)?;
    locations.check(&uri)?;
    Ok(uri)
}

/// A prefix for the videos of a batch.
pub(crate) fn prefix(text: &str, locations: &Locations) -> Result<VideoUri, ApiError> {
    folder("videos", text, locations)
}

/// A place for the results of a batch.
pub(crate) fn results(text: &str, locations: &Locations) -> Result<VideoUri, ApiError> {
    folder("results", text, locations)
}

fn folder(what: &str, text: &str, locations: &Locations) -> Result<VideoUri, ApiError> {
    let uri = VideoUri::parse(text)?;
    if uri.is_path() && !text.starts_with('/') {
        return Err(ApiError::Invalid(format!(
            "{what} {text:?} is relative: give an absolute path or a URI"
        )));
    }
    let uri = location::normalize(&uri)?;
    refuse_secrets(&uri)?;
    locations.check_folder(&uri)?;
    Ok(uri)
}

/// Signatures and passwords are never stored, and a worker has only what is stored: a signed URL could not be opened
/// later.
pub(crate) fn refuse_secrets(uri: &VideoUri) -> Result<(), ApiError> {
    let Ok(url) = Url::parse(uri.expose()) else { return Ok(()) };
    if !matches!(url.scheme(), "http" | "https") {
        return Ok(());
    }
    if url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(ApiError::Invalid(format!(
            "{uri} carries a query or credentials: a signed URL is not kept, so no worker could open it later; name the object itself (s3://bucket/key) and let the workers have access to it"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use spectemp_store::{AllowList, LocationOptions};

    use super::*;

    fn locations() -> Locations {
        let list = AllowList::parse(["s3://videos/in/", "/srv/videos", "https://h/a/"]).unwrap();
        Locations::with_environment(LocationOptions::default(), []).allow(list)
    }

    fn status(video: &str) -> u16 {
        place(video, None, &locations()).map_or_else(|error| error.kind().0.as_u16(), |_| 200)
    }

    #[test]
    fn only_listed_places_are_taken() {
        for good in ["s3://videos/in/a.mp4", "https://h/a/b.mp4"] {
            assert_eq!(status(good), 200, "{good}");
        }
        for bad in [
            "s3://videos/a.mp4",
            "http://169.254.169.254/latest/meta-data",
            "http://localhost:6379/",
            "file:///etc/passwd",
            "/etc/passwd",
            "https://h/b/c.mp4",
        ] {
            assert_eq!(status(bad), 403, "{bad}");
        }
        // No object can have such a name.
        for bad in ["s3://videos/in/../a.mp4", "s3://videos/in/%2e%2e/a.mp4"] {
            assert_eq!(status(bad), 422, "{bad}");
        }
        assert_eq!(status("/srv/videos/../../etc/passwd"), 403);
        for bad in ["a.mp4", "", "ftp://h/a", "https://h/a/b.mp4?X-Amz-Signature=x", "https://me@h/a/b.mp4"] {
            assert_eq!(status(bad), 422, "{bad}");
        }
    }

    #[test]
    fn a_signature_is_not_repeated() {
        let error = place("https://h/a/b.mp4?X-Amz-Signature=secret", None, &locations()).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
