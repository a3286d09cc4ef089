//! Who asks, and what they may do. A key stands for a tenant and a role; without any key a server on the loopback
//! interface belongs to whoever reaches it, but not to the web pages that its owner visits.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::Response,
};
use spectemp_queue::Limit;
use spectemp_store::{ApiKey, DEFAULT_TENANT, Role};

use crate::{error::ApiError, state::AppState};

/// A key is looked up again after this time: so long a revoked one may go on.
const KNOWN_FOR: Duration = Duration::from_secs(5);
/// Keys that are remembered at once.
const MOST_KNOWN: usize = 10_000;

/// Keys that were looked up a moment ago, by the hash of their secret.
#[derive(Default)]
pub(crate) struct KnownKeys {
    keys: Mutex<HashMap<blake3::Hash, (ApiKey, Instant)>>,
    any: Mutex<Option<(bool, Instant)>>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: String,
    role: Role,
    /// The key's id, or the open server itself.
    key: String,
}

/// A caller who may read.
pub(crate) struct Reader(pub(crate) Caller);
/// A caller who may submit, cancel and retry.
pub(crate) struct Submitter(pub(crate) Caller);

/// A caller who may change what stands for the tenant as a whole.
pub(crate) struct Admin(pub(crate) Caller);

/// Finds out who asks, and counts the request against their limit.
pub(crate) async fn authenticate(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let caller = caller(&state, request.headers()).await?;
    let (rate, burst) = (state.settings.rate_per_second, state.settings.rate_burst);
    if let Limit::RetryAfter(wait) = state.limiter.check(&caller.key, rate, burst).await {
        return Err(ApiError::RateLimit(wait));
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

async fn caller(state: &AppState, headers: &HeaderMap) -> Result<Caller, ApiError> {
    if let Some(secret) = bearer(headers)? {
        let key = known(state, secret).await?.ok_or(ApiError::WrongKey)?;
        return Ok(Caller { tenant: key.tenant, role: key.role, key: key.id });
    }
    if !state.settings.open || any_key(state).await? {
        return Err(ApiError::NoKey);
    }
    refuse_other_sites(headers)?;
    Ok(Caller { tenant: DEFAULT_TENANT.to_owned(), role: Role::Admin, key: "open".to_owned() })
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let value = value.to_str().map_err(|_| ApiError::WrongKey)?;
    match value.split_once(' ') {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(secret.trim())),
        _ => Err(ApiError::NoKey),
    }
}

async fn known(state: &AppState, secret: &str) -> Result<Option<ApiKey>, ApiError> {
    let hash = blake3::hash(secret.as_bytes());
    let lock = || state.keys.keys.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((key, at)) = lock().get(&hash)
        && at.elapsed() < KNOWN_FOR
    {
        return Ok(Some(key.clone()));
    }
    let found = state.store.ledger().key_of(secret).await?;
    let mut keys = lock();
    if keys.len() >= MOST_KNOWN {
        keys.clear();
    }
    match &found {
        Some(key) => drop(keys.insert(hash, (key.clone(), Instant::now()))),
        None => drop(keys.remove(&hash)),
    }
    Ok(found)
}

/// True where the ledger has keys, as of a moment ago.
async fn any_key(state: &AppState) -> Result<bool, ApiError> {
    let lock = || state.keys.any.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((any, at)) = *lock()
        && at.elapsed() < KNOWN_FOR
    {
        return Ok(any);
    }
    let any = state.store.ledger().any_key().await?;
    *lock() = Some((any, Instant::now()));
    Ok(any)
}

/// A page of another site can make its visitor's browser send requests here, under this host's name or, after it has
/// changed its own name's address, under its own. Neither looks like a program of this machine.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    let here = |host: &str| {
        let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        let name = name.map_or(host, |(name, _)| name);
        name == "localhost"
            || name == "[::1]"
            || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
    };
    let origin = text(header::ORIGIN).map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
    let other = !text(header::HOST).is_none_or(here)
        || !origin.is_none_or(here)
        || text(header::HeaderName::from_static("sec-fetch-site")) == Some("cross-site");
    if other { Err(ApiError::OtherSite) } else { Ok(()) }
}

impl Caller {
    fn of(parts: &Parts, needs: Role) -> Result<Self, ApiError> {
        // Routes without the layer above have no caller.
        let caller = parts.extensions.get::<Self>().ok_or(ApiError::NoKey)?;
        if !caller.role.includes(needs) {
            return Err(ApiError::Role { needs: needs.as_str(), has: caller.role.as_str() });
        }
        Ok(caller.clone())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Caller::of(parts, Role::Read).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Submitter {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Caller::of(parts, Role::Submit).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Caller::of(parts, Role::Admin).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn an_open_server_is_not_open_to_other_sites() {
        for host in ["127.0.0.1:8080", "localhost", "[::1]:80", "127.0.0.2"] {
            assert!(refuse_other_sites(&headers(&[("host", host)])).is_ok(), "{host}");
            let origin = format!("http://{host}");
            assert!(refuse_other_sites(&headers(&[("host", host), ("origin", &origin)])).is_ok(), "{host}");
        }
        for bad in [
            headers(&[("host", "evil.example")]),
            headers(&[("host", "127.0.0.1.evil.example:8080")]),
            headers(&[("host", "127.0.0.1"), ("origin", "https://evil.example")]),
            headers(&[("host", "127.0.0.1"), ("origin", "null")]),
            headers(&[("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")]),
        ] {
            assert!(refuse_other_sites(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_bearer_keys_are_read() {
        assert_eq!(bearer(&headers(&[])).unwrap(), None);
        assert_eq!(bearer(&headers(&[("authorization", "bearer abc ")])).unwrap(), Some("abc"));
        assert!(bearer(&headers(&[("authorization", "Basic abc")])).is_err());
    }
}
