//! Requests to one server: a limit of how many at once, retries of passing faults, limits of time and size, and errors
//! that name the server and what to do. Dropping a call ends its HTTP request, and with it the work on the server.

use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::{
    RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION},
    redirect::Policy,
};
use tokio::sync::Semaphore;

use crate::{
    ApiKey, RemoteError, Settings,
    retry::{PATIENCE, asked, pause},
    wire::said,
};

/// More than any answer with its log-probabilities needs.
const MOST_BYTES: usize = 32 << 20;
/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest wait for what costs a server nothing.
const SHORT: Duration = Duration::from_secs(30);

/// One server, and the model that is asked for in errors.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    /// In errors; `any` until it is known.
    pub(crate) model: String,
    key: Option<ApiKey>,
    header: Option<HeaderValue>,
    limit: Semaphore,
    retries: u32,
    timeout: Duration,
}

/// An answer and how long its request took.
pub(crate) struct Answered {
    pub(crate) body: Bytes,
    pub(crate) took: Duration,
}

/// Why one try failed.
enum Fault {
    /// Another try may work, at best after so long.
    Passing { cause: String, asked: Option<Duration> },
    /// It took too long: to ask again at once would make it worse.
    Slow,
    /// No other try can work.
    Final { cause: String, status: Option<u16> },
}

impl Client {
    pub(crate) fn new(
        base: String,
        model: String,
        key: Option<ApiKey>,
        settings: &Settings,
    ) -> Result<Self, RemoteError> {
        // A redirected POST becomes a GET, and would take the frames to a place that nobody named.
        let http = reqwest::Client::builder().connect_timeout(CONNECT).redirect(Policy::none()).build();
        let http = http.map_err(|cause| RemoteError::Refused {
            server: base.clone(),
            model: model.clone(),
            cause: format!("no HTTP client can be made: {cause}"),
            status: None,
        })?;
        let header = key.as_ref().map(ApiKey::header).transpose()?;
        let limit = Semaphore::new(settings.concurrency);
        Ok(Self {
            http,
            base,
            model,
            key,
            header,
            limit,
            retries: settings.retries,
            timeout: settings.timeout,
        })
    }

    /// The base URL.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// `GET base/path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answered, RemoteError> {
        let limit = self.timeout.min(SHORT);
        self.send(limit, || self.http.get(format!("{}/{path}", self.base))).await
    }

    /// `POST base/path` with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: Bytes) -> Result<Answered, RemoteError> {
        let url = format!("{}/{path}", self.base);
        let json = || self.http.post(&url).header(CONTENT_TYPE, "application/json").body(body.clone());
        self.send(self.timeout, json).await
    }

    /// Sends until an answer is there, a try is final, or the tries are used up.
    async fn send(
        &self,
        limit: Duration,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Answered, RemoteError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (cause, asked) = match self.once(request().timeout(limit)).await {
                Ok(answered) => return Ok(answered),
                Err(Fault::Final { cause, status }) => return Err(self.refused(cause, status)),
                Err(Fault::Slow) => return Err(self.unavailable(too_slow(limit), tries)),
                Err(Fault::Passing { cause, asked }) => (cause, asked),
            };
            if let Some(wait) = asked.filter(|wait| *wait > PATIENCE) {
                let cause = format!("{cause}; it wants to be left alone for {} s", wait.as_secs());
                return Err(self.unavailable(cause, tries));
            }
            if tries > self.retries {
                return Err(self.unavailable(cause, tries));
            }
            let wait = pause(tries, asked);
            tracing::info!(
                server = %self.base,
                tries,
                wait_ms = wait.as_millis() as u64,
                cause = %cause,
                "model server is asked again"
            );
            tokio::time::sleep(wait).await;
        }
    }

    /// One try. The place in the limit is given back before any pause.
    async fn once(&self, request: RequestBuilder) -> Result<Answered, Fault> {
        let _place = self
            .limit
            .acquire()
            .await
            .map_err(|_| Fault::Final { cause: "the client was closed".to_owned(), status: None })?;
        let request = match &self.header {
            Some(header) => request.header(AUTHORIZATION, header.clone()),
            None => request,
        };
        let started = Instant::now();
        let response = request.send().await.map_err(|error| self.broken(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.read(response).await?;
        if status.is_success() {
            return Ok(Answered { body, took: started.elapsed() });
        }
        let text = self.hidden(&said(&String::from_utf8_lossy(&body)));
        let asked = asked(&headers, SystemTime::now());
        let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
        Err(self.fault(status, &text, asked, to))
    }

    /// The body, as long as it is not too large.
    async fn read(&self, mut response: Response) -> Result<Bytes, Fault> {
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            if body.len() + chunk.len() > MOST_BYTES {
                let cause = format!(
                    "its reply is over {} MiB: check that the address is that of a model server",
                    MOST_BYTES >> 20
                );
                return Err(Fault::Final { cause, status: None });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// A connection that was not made, or broke.
    fn broken(&self, error: reqwest::Error) -> Fault {
        if error.is_timeout() && !error.is_connect() {
            return Fault::Slow;
        }
        let what = if error.is_connect() { "cannot be reached" } else { "the connection broke" };
        let cause = format!("{what}: {}", self.hidden(&chain(&error.without_url())));
        Fault::Passing { cause, asked: None }
    }

    /// A status that is no success.
    fn fault(&self, status: StatusCode, said: &str, asked: Option<Duration>, to: &str) -> Fault {
        let what = if said.is_empty() {
            format!("status {}", status.as_u16())
        } else {
            format!("{}: {said}", status.as_u16())
        };
        let advice = match status.as_u16() {
            // A spent account answers 429 for ever.
            429 if said.contains("insufficient_quota") || said.contains("exceeded your current quota") => "",
            408 | 425 | 429 | 500 | 502 | 503 | 504 | 529 => return Fault::Passing { cause: what, asked },
            401 | 403 if self.key.is_none() => {
                "; it wants a key: set SPECTEMP_TARGET_API_KEY or SPECTEMP_DRAFT_API_KEY"
            }
            401 | 403 => "; check SPECTEMP_TARGET_API_KEY and SPECTEMP_DRAFT_API_KEY",
            404 => "; check the address: the base usually ends in /v1, the model stands after #",
            413 => "; send fewer or smaller frames, or a lower quality",
            400 | 422 if is_too_long(said) => "; lower the frames or pixels, or serve a longer context",
            400 | 422 if said.contains("logprobs") => {
                "; write logprobs=off or a smaller number into its address"
            }
            300..400 => {
                return Fault::Final {
                    cause: format!("{what}; it redirects to {to:?}: name that address"),
                    status: Some(status.as_u16()),
                };
            }
            _ => "",
        };
        Fault::Final { cause: format!("{what}{advice}"), status: Some(status.as_u16()) }
    }

    /// A reply that is not what the protocol says.
    pub(crate) fn unreadable(&self, cause: impl std::fmt::Display) -> RemoteError {
        self.unavailable(format!("its reply cannot be used: {cause}"), 1)
    }

    pub(crate) fn refused(&self, cause: String, status: Option<u16>) -> RemoteError {
        RemoteError::Refused { server: self.base.clone(), model: self.model.clone(), cause, status }
    }

    fn unavailable(&self, cause: String, tries: u32) -> RemoteError {
        RemoteError::Unavailable { server: self.base.clone(), model: self.model.clone(), cause, tries }
    }

    fn hidden(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.hidden_in(text))
    }
}

fn too_slow(limit: Duration) -> String {
    format!("no answer within {} s: raise timeout_s in its address, or lower concurrency", limit.as_secs())
}

/// Servers word it differently: vLLM and SGLang name the maximum context length, llama.cpp the context size.
fn is_too_long(said: &str) -> bool {
    let said = said.to_lowercase();
    said.contains("context")
        && ["length", "size", "maximum", "exceed", "too long"].iter().any(|word| said.contains(word))
}

/// An error with the causes behind it: reqwest's own text stops at "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
