//! What the commands that talk to a server share: where it is, who asks, and what its refusals mean.

pub(crate) mod events;

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde_json::Value;

use crate::output::Usage;

/// Which server, and with which key.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// Where the server is.
    #[arg(long, value_name = "URL", env = "SPECTEMP_SERVER", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// Who asks: a key of `spectemp key create`. Not needed for a server of this machine that has no keys.
    #[arg(long, value_name = "KEY", env = "SPECTEMP_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

/// A server.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<String>,
}

/// The server has no such job or batch.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotThere(pub(crate) String);

impl ServerArgs {
    /// The client for it; nothing is sent yet.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let bad = |cause: String| Usage(format!("--server {:?} {cause}", self.server));
        let mut base = Url::parse(&self.server).map_err(|cause| bad(format!("is no URL: {cause}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(bad("must be like https://host:8080".to_owned()).into());
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("spectemp/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("no HTTP client can be made")?;
        Ok(Client { http, base, key: self.api_key.clone() })
    }
}

impl Client {
    /// A request under `/api/v1`; each of `parts` is one part of the path.
    pub(crate) fn request(&self, method: Method, parts: &[&str]) -> RequestBuilder {
        self.asking(method, parts, &[])
    }

    /// The same with a query.
    pub(crate) fn asking(&self, method: Method, parts: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1"]).extend(parts);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends it and reads the JSON that comes back.
    pub(crate) async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.send(request).await?;
        let base = &self.base;
        response.json().await.with_context(|| format!("{base} does not look like a spectemp server"))
    }

    /// What lies at the path.
    pub(crate) async fn get(&self, parts: &[&str]) -> anyhow::Result<Value> {
        self.json(self.request(Method::GET, parts)).await
    }

    /// As [`Self::get`]; none where it is not there.
    pub(crate) async fn find(&self, parts: &[&str]) -> anyhow::Result<Option<Value>> {
        match self.get(parts).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is::<NotThere>() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends it; an error where the server refuses or is none.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let base = &self.base;
        let response = request.send().await.map_err(|error| {
            let how = if error.is_connect() {
                "is `spectemp serve` or `spectemp up` running there? (--server or SPECTEMP_SERVER says where)"
            } else {
                "the connection broke"
            };
            anyhow::Error::from(error.without_url())
                .context(format!("server {base} cannot be reached: {how}"))
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.unwrap_or_default();
        Err(refusal(base, status, &headers, &body))
    }
}

/// What a refusal means.
fn refusal(base: &Url, status: StatusCode, headers: &HeaderMap, body: &str) -> anyhow::Error {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    let detail = problem["detail"].as_str();
    let (Some(detail), true) = (detail, kind.starts_with("application/problem+json")) else {
        return anyhow::anyhow!(
            "{base} does not look like a spectemp server: it answered with status {status}"
        );
    };
    match status {
        StatusCode::UNAUTHORIZED => {
            anyhow::anyhow!("{detail} (--api-key KEY or SPECTEMP_API_KEY; `spectemp key create` makes one)")
        }
        StatusCode::NOT_FOUND => NotThere(detail.to_owned()).into(),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            anyhow::anyhow!("{detail}; try again later")
        }
        _ => {
            let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
            let line = |bad: &Value| {
                format!("\n  line {}: {}", bad["line"], bad["error"].as_str().unwrap_or_default())
            };
            anyhow::anyhow!("{detail}{}", errors.iter().take(20).map(line).collect::<String>())
        }
    }
}

/// What a name stands for.
pub(crate) enum Named {
    /// A job.
    Job(Value),
    /// A batch.
    Batch(Value),
}

impl Client {
    /// The job with this UUID, or the batch of this name.
    pub(crate) async fn named(&self, name: &str) -> anyhow::Result<Named> {
        if let Some(job) = self.find(&["jobs", name]).await? {
            return Ok(Named::Job(job));
        }
        match self.find(&["batches", name]).await? {
            Some(batch) => Ok(Named::Batch(batch)),
            None => Err(NotThere(format!(
                "there is no job and no batch {name:?}: `spectemp status` lists batches"
            ))
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_the_path() {
        let args = ServerArgs { server: "https://host/at".to_owned(), api_key: None };
        let request =
            args.client().unwrap().request(Method::GET, &["batches", "s3://b/x y?"]).build().unwrap();
        assert_eq!(request.url().as_str(), "https://host/at/api/v1/batches/s3:%2F%2Fb%2Fx%20y%3F");
        for bad in ["host:8080", "ftp://host", "nothing"] {
            assert!(ServerArgs { server: bad.to_owned(), api_key: None }.client().is_err(), "{bad}");
        }
    }

    #[test]
    fn another_server_is_told_apart() {
        let base = Url::parse("http://host/").unwrap();
        let error = refusal(&base, StatusCode::NOT_FOUND, &HeaderMap::new(), "<html>not found</html>");
        assert!(error.to_string().contains("does not look like a spectemp server"), "{error}");
        assert!(!error.is::<NotThere>());
    }
}
