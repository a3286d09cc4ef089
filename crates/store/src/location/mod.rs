//! From a URI or a path to an object client and a path in it.
//!
//! Clients are made once per bucket (or for all of the local file system) and shared. Credentials come from the
//! environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`
//! (`http://` is allowed where the endpoint says so), `GOOGLE_*`, `AZURE_*`, or the machine's own role.
//!
//! How a name is read: a plain path is taken as it is written; in a URI `%XX` is decoded; `#` and `?` belong to the
//! name, except in `http(s)`, where they begin fragment and query.

mod download;
mod exact_url;
mod place;
mod prefix;

use std::{
    collections::HashMap,
    ffi::OsString,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path,
};
use spectemp_types::{UriError, VideoUri};

pub(crate) use place::local_path;
pub use place::normalize;
pub use prefix::{batch_name, join, under, within};

use exact_url::HttpClients;
use place::{Cloud, Place};

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
    options: LocationOptions,
    environment: HashMap<String, String>,
    clients: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    http: HttpClients,
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
        let http = HttpClients::new(client_options(&options).with_allow_http(true), retry(&options));
        Self { options, environment: environment.into_iter().collect(), clients: Mutex::default(), http }
    }

    /// The client and path for `uri`. Nothing is read yet.
    ///
    /// # Errors
    /// A name that no object can have, or a client that cannot be made.
    pub fn resolve(&self, uri: &VideoUri) -> Result<ObjectLocation, LocationError> {
        let shown = || uri.redacted();
        let name_error =
            |cause: object_store::path::Error| LocationError::Name { uri: shown(), cause: cause.to_string() };
        let client_error = |error: object_store::Error| LocationError::Client {
            uri: shown(),
            cause: redacted_cause(&error),
        };
        let (store, path) = match Place::of(uri)? {
            Place::Local(path) => {
                let path = Path::parse(path.to_string_lossy()).map_err(name_error)?;
                (
                    self.cached("file", || Ok(Arc::new(LocalFileSystem::new().with_fsync(true))))
                        .map_err(client_error)?,
                    path,
                )
            }
            Place::Bucket { cloud, authority, key } => {
                let path = Path::parse(&key).map_err(name_error)?;
                let name = format!("{}://{authority}", cloud.scheme());
                (self.cached(&name, || self.bucket(cloud, &authority)).map_err(client_error)?, path)
            }
            Place::Http(url) => self.http.object(&url).map_err(client_error)?,
        };
        if path.filename().is_none() {
            return Err(LocationError::Name { uri: shown(), cause: "it names no object".to_owned() });
        }
        Ok(ObjectLocation { store, path, uri: uri.clone() })
    }

    fn cached<E>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Arc<dyn ObjectStore>, E>,
    ) -> Result<Arc<dyn ObjectStore>, E> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(name) {
            return Ok(Arc::clone(client));
        }
        let client = make()?;
        clients.insert(name.to_owned(), Arc::clone(&client));
        Ok(client)
    }

    fn bucket(&self, cloud: Cloud, authority: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
        let options = client_options(&self.options);
        let retry = retry(&self.options);
        Ok(match cloud {
            Cloud::S3 => {
                let options = options.with_allow_http(self.s3_over_http());
                let builder = self.settings("AWS_").fold(AmazonS3Builder::new(), |builder, (key, value)| {
                    match key.parse() {
                        Ok(key) => builder.with_config(key, value),
                        Err(_) => builder,
                    }
                });
                Arc::new(
                    builder
                        .with_bucket_name(authority)
                        .with_client_options(options)
                        .with_retry(retry)
                        .build()?,
                )
            }
            Cloud::Google => {
                let settings = self.settings("GOOGLE_").chain(self.settings("SERVICE_ACCOUNT"));
                let builder = settings.fold(GoogleCloudStorageBuilder::new(), |builder, (key, value)| {
                    match key.parse() {
                        Ok(key) => builder.with_config(key, value),
                        Err(_) => builder,
                    }
                });
                Arc::new(
                    builder
                        .with_bucket_name(authority)
                        .with_client_options(options)
                        .with_retry(retry)
                        .build()?,
                )
            }
            Cloud::Azure => {
                let scheme = if authority.contains('@') { "abfss" } else { "az" };
                let builder =
                    self.settings("AZURE_").fold(MicrosoftAzureBuilder::new(), |builder, (key, value)| {
                        match key.parse() {
                            Ok(key) => builder.with_config(key, value),
                            Err(_) => builder,
                        }
                    });
                let builder = builder.with_url(format!("{scheme}://{authority}/"));
                Arc::new(builder.with_client_options(options).with_retry(retry).build()?)
            }
        })
    }

    /// The variables of one cloud, names in lower case as its builder knows them.
    fn settings(&self, prefix: &str) -> impl Iterator<Item = (String, &String)> {
        let of_cloud = self.environment.iter().filter(move |(name, _)| name.starts_with(prefix));
        of_cloud.map(|(name, value)| (name.to_ascii_lowercase(), value))
    }

    /// True where the environment names an endpoint without TLS, or allows it outright.
    fn s3_over_http(&self) -> bool {
        let value = |name: &str| {
            self.environment.get(name).map_or_else(String::new, |value| value.to_ascii_lowercase())
        };
        let endpoints = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
        endpoints.iter().any(|name| value(name).starts_with("http://"))
            || matches!(value("AWS_ALLOW_HTTP").as_str(), "true" | "1")
    }
}

fn client_options(options: &LocationOptions) -> ClientOptions {
    ClientOptions::new().with_timeout(options.request_timeout).with_connect_timeout(options.connect_timeout)
}

fn retry(options: &LocationOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: options.retries,
        retry_timeout: options.retry_timeout,
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
