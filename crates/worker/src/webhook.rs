//! Webhooks: a signed POST when a batch has ended.
//!
//! The URL comes from outside and the caller stands inside the server's network, so by default nothing private is ever
//! connected to. A name is looked up once and what it leads to is checked then, at the very lookup that the connection
//! uses: a name that leads elsewhere a moment later does not help. Redirects are not followed and no proxy is asked.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use serde::Serialize;
use sha2::Sha256;
use spectemp_store::Counts;

/// Seconds since 1970, as text; part of what is signed.
pub const TIMESTAMP_HEADER: &str = "spectemp-timestamp";
/// `v1=` and the signature in hexadecimal, see [`signature`].
pub const SIGNATURE_HEADER: &str = "spectemp-signature";
/// The longest that a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a receiver is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WebhookBody {
    /// Of this form.
    pub version: u32,
    /// `batch.ended`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whose batch.
    pub tenant: String,
    /// Its name. A message may come twice: tenant and batch tell.
    pub batch: String,
    /// Jobs that were answered.
    pub answered: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Lines that became no job.
    pub bad_lines: u64,
    /// URI prefix of the results, where they were wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
}

impl WebhookBody {
    /// Of a batch that has ended.
    pub(crate) fn ended(batch: &spectemp_store::Batch, counts: Counts) -> Self {
        Self {
            version: 1,
            kind: "batch.ended",
            tenant: batch.tenant.clone(),
            batch: batch.name.clone(),
            answered: counts.answered,
            failed: counts.failed,
            cancelled: counts.cancelled,
            bad_lines: batch.bad_lines,
            results: batch.results.clone(),
        }
    }
}

/// The value of [`SIGNATURE_HEADER`]: HMAC-SHA256 with `secret` over the timestamp, a dot, and the body as it is sent.
/// A receiver makes it again, compares in constant time, and refuses old timestamps.
pub fn signature(secret: &str, timestamp: &str, body: &[u8]) -> String {
    // Every length of key will do for an HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    let sum = mac.finalize().into_bytes();
    sum.iter().fold("v1=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Sends webhooks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    client: Client,
    private: bool,
}

impl Caller {
    /// `private` lets it connect to private addresses too.
    pub(crate) fn new(private: bool) -> Result<Self, String> {
        let builder = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT / 2)
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(concat!("spectemp/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Lookup { private }));
        Ok(Self { client: builder.build().map_err(|cause| cause.to_string())?, private })
    }

    /// Sends `body` to `url`. The error says why the receiver did not take it; it holds no query.
    pub(crate) async fn call(&self, url: &str, secret: &str, body: &WebhookBody) -> Result<(), String> {
        let url = self.check(url)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let body = serde_json::to_vec(body).map_err(|cause| cause.to_string())?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let timestamp = now.as_secs().to_string();
        let answer = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header(SIGNATURE_HEADER, signature(secret, &timestamp, &body))
            .header(TIMESTAMP_HEADER, timestamp)
            .body(body)
            .send()
            .await;
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("webhook at {host} answered {}", answer.status())),
            Err(cause) => Err(format!("webhook at {host} failed: {}", chain(&cause.without_url()))),
        }
    }

    /// Refuses what needs no lookup to be refused.
    fn check(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|cause| format!("webhook url cannot be read: {cause}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("webhook url must begin with https:// or http://".to_owned());
        }
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            Ok(ip) if !self.private && is_private(ip) => Err(format!("webhook at {host}: {REFUSED}")),
            _ if host.is_empty() => Err("webhook url names no host".to_owned()),
            _ => Ok(url),
        }
    }
}

const REFUSED: &str = "a private address is never called (--webhooks-private allows it)";

/// The resolver of the client: what leads inside is not found.
#[derive(Clone, Copy, Debug)]
struct Lookup {
    private: bool,
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let private = self.private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| private || !is_private(address.ip())).collect();
            if allowed.is_empty() {
                return Err(REFUSED.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Everything that is not an address of the open internet.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => is_private_v6(ip),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
        || (a == 192 && b == 0 && c == 0)
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    let parts = ip.segments();
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // Addresses of IPv4 in the clothes of IPv6: mapped, compatible, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0, 0, high, low] => {
            inner(high, low) || ip.is_loopback() || ip.is_unspecified()
        }
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        // Unique local, link local, site local, multicast, documentation, discard, Teredo, NAT64 for local use.
        [0x2001, 0xdb8 | 0, ..] | [0x100, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => true,
        [first, ..] => {
            first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80
                || first & 0xffc0 == 0xfec0
                || first & 0xff00 == 0xff00
        }
    }
}

/// The error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_an_hmac_over_time_and_body() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            signature("secret", "1700000000", br#"{"a":1}"#),
            "v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"
        );
        assert_ne!(signature("secret", "1", b"2"), signature("secret", "2", b"2"));
        assert_ne!(signature("secret", "1", b"2"), signature("other", "1", b"2"));
    }

    #[test]
    fn addresses_of_the_inside_are_private() {
        let inside = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
        ];
        for text in inside {
            assert!(is_private(text.parse().unwrap()), "{text}");
        }
        for text in ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(!is_private(text.parse().unwrap()), "{text}");
        }
    }

    #[tokio::test]
    async fn what_leads_inside_is_not_called() {
        let caller = Caller::new(false).unwrap();
        let batch = spectemp_store::Batch::default();
        let body = WebhookBody::ended(&batch, Counts::default());
        let urls = [
            "http://127.0.0.1:1/",
            "http://[::1]:1/",
            "http://169.254.169.254/latest",
            "http://localhost:1/",
            "http://127.1:1/",
            "http://0x7f000001:1/",
            "http://2130706433:1/",
        ];
        for url in urls {
            let error = caller.call(url, "s", &body).await.unwrap_err();
            assert!(error.contains("private address"), "{url}: {error}");
        }
        for url in ["ftp://example.com/", "file:///etc/passwd", "nonsense"] {
            assert!(caller.call(url, "s", &body).await.is_err(), "{url}");
        }
    }
}
