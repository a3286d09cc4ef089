//! The address of a webhook: it is called from inside of the server's network, so not every address will do. Names are
//! looked up again when it is called; what can be seen now is refused now.

use std::net::{IpAddr, Ipv6Addr};

use rand::{TryRngCore as _, rngs::OsRng};
use url::{Host, Url};

use crate::error::ApiError;

const MOST_BYTES: usize = 2048;

/// The URL, checked; private addresses only where `private` says so.
pub(crate) fn url(text: &str, private: bool) -> Result<String, ApiError> {
    let bad = |cause: &str| ApiError::Invalid(format!("webhook url {cause}"));
    if text.len() > MOST_BYTES {
        return Err(bad("is longer than 2048 bytes"));
    }
    let url = Url::parse(text).map_err(|cause| bad(&format!("is no URL: {cause}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("holds a user or password: the signature tells who calls"));
    }
    let inside = match url.host() {
        None => return Err(bad("names no host")),
        Some(Host::Ipv4(ip)) => is_private(ip.into()),
        Some(Host::Ipv6(ip)) => is_private(ip.into()),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost") || name.ends_with(".internal")
        }
    };
    if inside && !private {
        return Err(bad("leads into a private network"));
    }
    Ok(url.into())
}

/// A new secret: 256 random bits.
pub(crate) fn secret() -> Result<String, ApiError> {
    let mut bytes = [0_u8; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(|cause| {
        tracing::error!(error = %cause, "the system gives no random bytes");
        ApiError::Internal
    })?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("whsec_{hex}"))
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_multicast()
                || first == 0
                || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_private(ip.into()),
            None => is_private_v6(ip),
        },
    }
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_do_not_lead_inside() {
        for good in ["https://example.com/hook?x=1", "http://93.184.216.34:8080/", "https://[2606:4700::1]/"]
        {
            assert!(url(good, false).is_ok(), "{good}");
        }
        for bad in [
            "http://169.254.169.254/latest",
            "http://localhost/",
            "http://127.1/",
            "http://2130706433/",
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[fd00::1]/",
            "http://metadata.google.internal/",
            "ftp://example.com/",
            "https://me:pw@example.com/",
            "not a url",
        ] {
            assert!(url(bad, false).is_err(), "{bad}");
        }
        assert!(url("http://127.0.0.1:9/", true).is_ok());
    }
}
