//! From a URI or a path to an object client and a path in it.
//!
//! Clients are made once per bucket (or for all of the local file system) and shared. Settings come from the
//! environment: `AWS_REGION`, `AWS_ENDPOINT_URL` (`http://` is allowed where the endpoint says so), `GOOGLE_*`,
//! `AZURE_*`; credentials too, those of S3 else from the chain of the AWS tools (module `aws`).
//!
//! On a server an [`AllowList`] says what may be opened; every way to a client goes through [`Locations`].
//!
//! How a name is read: a plain path is taken as it is written; in a URI `%XX` is decoded; `#` and `?` belong to the
//! name, except in `http(s)`, where they begin fragment and query.

mod allow;
mod aws;
mod clients;
mod download;
mod exact_url;
mod place;
mod prefix;
mod s3;

use std::{
    collections::HashMap,
    ffi::OsString,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use spectemp_types::{UriError, VideoUri};

pub use allow::AllowList;
pub use place::normalize;
pub(crate) use place::{decoded, folder_key, local_path, object_in};
pub use prefix::{batch_name, join, under, within};
pub(crate) use s3::{Restore, S3Bucket};

use clients::Clients;
use exact_url::HttpClients;
use place::Place;

/// Why a location cannot be used. No text holds a query.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// Not a URI or path that can be opened.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// A URI or path that no object can have.
    #[error("location {uri:?} cannot be opened: {cause}")]
    Name {
        /// The URI without query.
        uri: String,
        /// Why.
        cause: String,
    },
    /// The client for it cannot be made: a missing account or region, for example.
    #[error("no client for {uri:?}: {cause}")]
    Client {
        /// The URI without query.
        uri: String,
        /// Why.
        cause: String,
    },
    /// A location that this server may not open.
    #[error("{uri:?} is in no bucket, prefix or folder that this server may open")]
    Forbidden {
        /// The URI without query.
        uri: String,
    },
    /// A location outside of the prefix that all must lie in.
    #[error("{uri:?} lies outside of {prefix:?}")]
    Outside {
        /// The URI without query.
        uri: String,
        /// The prefix.
        prefix: String,
    },
}

/// Patience with object stores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocationOptions {
    /// Longest single request, body included.
    pub request_timeout: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Most repetitions of a request that failed in passing.
    pub retries: usize,
    /// No repetition begins later than this after the first try.
    pub retry_timeout: Duration,
}

impl Default for LocationOptions {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            retries: 5,
            retry_timeout: Duration::from_secs(120),
        }
    }
}

/// An object and the client that reaches it.
#[derive(Clone, Debug)]
pub struct ObjectLocation {
    /// The client.
    pub store: Arc<dyn ObjectStore>,
    /// The object's path in it.
    pub path: Path,
    /// Where it lies.
    pub uri: VideoUri,
}

/// Makes clients and keeps them.
#[derive(Debug)]
pub struct Locations {
    clients: Clients,
    made: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    http: HttpClients,
    allowed: Option<AllowList>,
}

impl Default for Locations {
    fn default() -> Self {
        Self::new(LocationOptions::default())
    }
}

impl Locations {
    /// With the settings and credentials of the process's environment. No client is made yet.
    pub fn new(options: LocationOptions) -> Self {
        let readable =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self::with_environment(options, std::env::vars_os().filter_map(readable))
    }

    /// With these variables in place of the process's environment.
    pub fn with_environment(
        options: LocationOptions,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self {
            clients: Clients::new(options, environment.into_iter().collect()),
            made: Mutex::default(),
            http: HttpClients::new(options, None),
            allowed: None,
        }
    }

    /// The same for a server: what is not on the list is [`LocationError::Forbidden`] from now on, and a redirect of
    /// a web server leads only to what is on it.
    pub fn allow(mut self, list: AllowList) -> Self {
        self.http = HttpClients::new(*self.clients.options(), Some(list.clone()));
        self.allowed = Some(list);
        self
    }

    /// Checks that `uri` may be opened. Nothing is opened.
    ///
    /// # Errors
    /// [`LocationError::Forbidden`], or a name that no object can have.
    pub fn check(&self, uri: &VideoUri) -> Result<(), LocationError> {
        self.place(uri).map(|_| ())
    }

    fn place(&self, uri: &VideoUri) -> Result<Place, LocationError> {
        match &self.allowed {
            Some(list) => list.permit(uri),
            None => Place::of(uri),
        }
    }

    /// The client and path for `uri`. Nothing is read yet.
    ///
    /// # Errors
    /// [`LocationError::Forbidden`], a name that no object can have, or a client that cannot be made.
    pub fn resolve(&self, uri: &VideoUri) -> Result<ObjectLocation, LocationError> {
        let location = self.client_of(self.place(uri)?, uri)?;
        if location.path.filename().is_none() {
            let cause = "it names no object".to_owned();
            return Err(LocationError::Name { uri: uri.redacted(), cause });
        }
        Ok(location)
    }

    /// As [`Self::resolve`], for a folder, which may be a whole bucket or all that the list allows.
    pub(crate) fn resolve_folder(&self, uri: &VideoUri) -> Result<ObjectLocation, LocationError> {
        self.check_folder(uri)?;
        self.client_of(Place::of(uri)?, uri)
    }

    /// As [`Self::check`], for a folder: what lies in it may be opened.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_folder(&self, uri: &VideoUri) -> Result<(), LocationError> {
        match &self.allowed {
            // The list speaks of what lies in its folders: so some name in this one is asked for.
            Some(list) => {
                let forbidden = |_| LocationError::Forbidden { uri: uri.redacted() };
                list.permit(&join(uri, "x").map_err(forbidden)?).map(|_| ())
            }
            None => Place::of(uri).map(|_| ()),
        }
    }

    /// As [`Self::resolve_folder`], for what the operator of the server has named: the list is not asked.
    pub(crate) fn resolve_own_folder(&self, uri: &VideoUri) -> Result<ObjectLocation, LocationError> {
        self.client_of(Place::of(uri)?, uri)
    }

    fn client_of(&self, place: Place, uri: &VideoUri) -> Result<ObjectLocation, LocationError> {
        let shown = || uri.redacted();
        let name_error =
            |cause: object_store::path::Error| LocationError::Name { uri: shown(), cause: cause.to_string() };
        let client_error = |error: object_store::Error| LocationError::Client {
            uri: shown(),
            cause: redacted_cause(&error),
        };
        let (store, path) = match place {
            Place::Local(path) => {
                let path = Path::parse(path.to_string_lossy()).map_err(name_error)?;
                let disk = || Ok(Arc::new(LocalFileSystem::new().with_fsync(true)) as Arc<dyn ObjectStore>);
                (self.cached("file", disk).map_err(client_error)?, path)
            }
            Place::Bucket { cloud, authority, key } => {
                let path = Path::parse(&key).map_err(name_error)?;
                let name = format!("{}://{authority}", cloud.scheme());
                let bucket = || self.clients.bucket(cloud, &authority);
                (self.cached(&name, bucket).map_err(client_error)?, path)
            }
            Place::Http(url) => self.http.object(&url).map_err(client_error)?,
        };
        Ok(ObjectLocation { store, path, uri: uri.clone() })
    }

    fn cached<E>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Arc<dyn ObjectStore>, E>,
    ) -> Result<Arc<dyn ObjectStore>, E> {
        let mut clients = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(name) {
            return Ok(Arc::clone(client));
        }
        let client = make()?;
        clients.insert(name.to_owned(), Arc::clone(&client));
        Ok(client)
    }
}

/// The texts of an error and its causes, each once, without the query of any URL in them.
pub(crate) fn redacted_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    redact_urls(&text)
}

fn redact_urls(text: &str) -> String {
    let mut words = Vec::new();
    for word in text.split(' ') {
        match (word.find("://"), word.find('?')) {
            (Some(scheme), Some(query)) if scheme < query => {
                let rest = &word[query..];
                let end = rest.find(['"', '\'', ')', '>', '`', '\n']).unwrap_or(rest.len());
                words.push(format!("{}{}", &word[..query], &rest[end..]));
            }
            _ => words.push(word.to_owned()),
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_cut_out_of_messages() {
        let text = "error sending request for url (https://h/a.mp4?X-Amz-Signature=abc&x=1): closed";
        assert_eq!(redact_urls(text), "error sending request for url (https://h/a.mp4): closed");
        assert_eq!(redact_urls("what? http://h/x is gone"), "what? http://h/x is gone");
    }
}
