//! `http(s)` objects, each reached by exactly the URL that was given: presigned URLs carry their signature in the
//! query, which object_store's HTTP client would drop, and encodings that it would change.
//!
//! Everything else is object_store's (retries, ranges, streams): a service between its store and the shared HTTP
//! client puts the URL in. A question for the object's size (HEAD, which presigned URLs refuse) is asked as a GET of
//! one byte.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::{
    ClientOptions, ObjectStore,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
    http::HttpBuilder,
    path::Path,
};
use reqwest::redirect::Policy;
use url::Url;

use super::{
    AllowList, LocationOptions,
    clients::{client_options, retry},
    place::decoded,
};

/// As browsers and most clients do it.
const MOST_REDIRECTS: usize = 10;

/// One HTTP client for all hosts: it keeps its own connections.
#[derive(Debug)]
pub(super) struct HttpClients {
    options: LocationOptions,
    /// Where redirects may lead; anywhere if there is no list.
    allowed: Option<AllowList>,
    client: OnceLock<HttpClient>,
}

impl HttpClients {
    pub(super) fn new(options: LocationOptions, allowed: Option<AllowList>) -> Self {
        Self { options, allowed, client: OnceLock::new() }
    }

    fn client(&self) -> Result<HttpClient, object_store::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let redirects = match self.allowed.clone() {
            None => Policy::limited(MOST_REDIRECTS),
            Some(list) => Policy::custom(move |attempt| {
                if attempt.previous().len() > MOST_REDIRECTS {
                    attempt.error("too many redirects")
                } else if list.permits_url(attempt.url()) {
                    attempt.follow()
                } else {
                    attempt.error("the server redirects to what this server may not open")
                }
            }),
        };
        let client = reqwest::Client::builder()
            .user_agent(concat!("spectemp/", env!("CARGO_PKG_VERSION")))
            .timeout(self.options.request_timeout)
            .connect_timeout(self.options.connect_timeout)
            .http1_only()
            .redirect(redirects)
            .build()
            .map_err(|error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) })?;
        Ok(self.client.get_or_init(|| HttpClient::new(client)).clone())
    }

    /// A store that reaches the one object at `url`, and the path that stands for it in messages.
    pub(super) fn object(&self, url: &Url) -> Result<(Arc<dyn ObjectStore>, Path), object_store::Error> {
        let client = self.client()?;
        let mut shown = url.clone();
        // These two cannot fail for a URL with a host, and http(s) has one.
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        shown.set_query(None);
        shown.set_fragment(None);
        let authorization = basic_authorization(url);
        let mut exact = url.clone();
        let _ = exact.set_username("");
        let _ = exact.set_password(None);
        exact.set_fragment(None);
        let store = HttpBuilder::new()
            .with_url(&shown[..url::Position::BeforePath])
            .with_client_options(client_options(&self.options).with_allow_http(true))
            .with_retry(retry(&self.options))
            .with_http_connector(Connector(ExactUrl { client, url: exact.to_string(), authorization }))
            .build()?;
        let path = Path::from_url_path(shown.path()).unwrap_or_else(|_| Path::from(shown.path()));
        Ok((Arc::new(store), path))
    }
}

#[derive(Debug)]
struct Connector(ExactUrl);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

#[derive(Clone)]
struct ExactUrl {
    client: HttpClient,
    url: String,
    /// From the URL's user and password.
    authorization: Option<String>,
}

impl fmt::Debug for ExactUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExactUrl")
    }
}

#[async_trait]
impl HttpService for ExactUrl {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        *request.uri_mut() =
            self.url.parse().map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        if let Some(authorization) = self.authorization.as_ref().and_then(|text| text.parse().ok()) {
            request.headers_mut().insert("authorization", authorization);
        }
        if request.method().as_str() != "HEAD" {
            return self.client.execute(request).await;
        }
        *request.method_mut() =
            "GET".parse().map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        if let Ok(one_byte) = "bytes=0-0".parse() {
            request.headers_mut().insert("range", one_byte);
        }
        self.client.execute(request).await.map(as_head)
    }
}

/// User and password of a URL as the header's text; the HTTP client itself ignores them.
fn basic_authorization(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let part = |text: &str| decoded(text).unwrap_or_else(|| text.to_owned());
    let plain = format!("{}:{}", part(url.username()), part(url.password().unwrap_or_default()));
    Some(format!("Basic {}", base64(plain.as_bytes())))
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for letter in 0..4 {
            let index = bits >> (18 - 6 * letter) & 63;
            text.push(if letter <= group.len() { LETTERS[index as usize].into() } else { '=' });
        }
    }
    text
}

/// The answer to a GET of one byte as the answer to a HEAD: the length is the whole object's, the body is empty.
fn as_head(response: HttpResponse) -> HttpResponse {
    let (mut parts, body) = response.into_parts();
    // An empty object has no first byte: `416` with `Content-Range: bytes */0`.
    let empty = parts.status.as_u16() == 416
        && parts.headers.get("content-range").is_some_and(|range| range.as_bytes().ends_with(b"*/0"));
    if empty {
        parts.status = Default::default();
    }
    if !parts.status.is_success() {
        return HttpResponse::from_parts(parts, body);
    }
    let total = parts
        .headers
        .get("content-range")
        .and_then(|range| range.to_str().ok()?.rsplit_once('/')?.1.parse().ok());
    if let Some(total) = total {
        parts.headers.insert("content-length", total);
        parts.headers.remove("content-range");
    }
    HttpResponse::from_parts(parts, Bytes::new().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_become_a_header() {
        // The examples of RFC 4648 and of RFC 7617.
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        let header = |url: &str| basic_authorization(&Url::parse(url).unwrap());
        assert_eq!(
            header("https://Aladdin:open%20sesame@h/x").unwrap(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(header("https://h/x"), None);
    }
}
