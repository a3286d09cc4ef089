//! What names a model on a server, for example `vllm+http://gpu7:8000/v1?image=png#Qwen/Qwen2.5-VL-7B-Instruct`: the
//! dialect, the base URL of the API, [`Settings`] as the query, and after `#` the model's id as the server spells it.
//! An address is written into traces as it is, so it never holds a secret.

use std::{fmt, str::FromStr};

use url::Url;

use crate::{Dialect, RemoteError, Settings};

/// What `openai+…` means: the dialect is found out.
const ANY: &str = "openai";

/// A model on a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    /// As it was written.
    text: String,
    /// How the server is spoken to; none: found out from what it says of its models.
    pub dialect: Option<Dialect>,
    /// The API's base, which ends in no slash, for example `http://gpu7:8000/v1`.
    pub base: String,
    /// The model's id; none: the only one that is served.
    pub model: Option<String>,
    /// How it is asked.
    pub settings: Settings,
}

impl Address {
    /// True for what is meant as an address of this kind: a scheme `…+http` or `…+https`.
    pub fn is_meant(text: &str) -> bool {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        scheme.ends_with("+http") || scheme.ends_with("+https")
    }

    /// True where both are served from one place: scheme, host and port are the same.
    pub fn same_origin(&self, other: &Self) -> bool {
        let origin = |address: &Self| Url::parse(&address.base).map(|url| url.origin()).ok();
        origin(self).is_some_and(|ours| origin(other) == Some(ours))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let wrong = |cause: String| RemoteError::Address { address: without_user(text), cause };
        // What stands behind `#` is the server's own word and is not decoded.
        let (place, model) = text.split_once('#').map_or((text, None), |(place, model)| (place, Some(model)));
        let (name, rest) = place.split_once('+').ok_or_else(|| wrong(usage()))?;
        let dialect = match name {
            ANY => None,
            name => Some(Dialect::named(name).ok_or_else(|| wrong(usage()))?),
        };
        let url = Url::parse(rest).map_err(|cause| wrong(cause.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong(usage()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "it holds a user or password: give the key as SPECTEMP_TARGET_API_KEY or SPECTEMP_DRAFT_API_KEY"
                    .to_owned(),
            ));
        }
        let settings = Settings::parse(url.query_pairs()).map_err(wrong)?;
        let mut base = url;
        base.set_query(None);
        Ok(Self {
            text: text.to_owned(),
            dialect,
            base: base.as_str().trim_end_matches('/').to_owned(),
            model: model.filter(|model| !model.is_empty()).map(str::to_owned),
            settings,
        })
    }
}

fn usage() -> String {
    let names: Vec<&str> = Dialect::ALL.iter().map(|dialect| dialect.name()).collect();
    format!("write KIND+http://HOST:PORT/v1#MODEL with KIND {ANY} or one of {}", names.join(", "))
}

/// The text without what stands between `://` and `@`, which may be a password.
fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let host_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..host_ends].rfind('@') {
        Some(at) => format!("{scheme}://…@{}", &rest[at + 1..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Picture;

    fn refused(text: &str) -> String {
        text.parse::<Address>().unwrap_err().to_string()
    }

    #[test]
    fn an_address_names_dialect_base_settings_and_model() {
        let text = "vllm+https://gpu7:8000/v1/?image=png&timeout_s=90#Qwen/Qwen2.5-VL-7B-Instruct";
        let address: Address = text.parse().unwrap();
        assert_eq!(address.dialect, Some(Dialect::Vllm));
        assert_eq!(address.base, "https://gpu7:8000/v1");
        assert_eq!(address.model.as_deref(), Some("Qwen/Qwen2.5-VL-7B-Instruct"));
        assert_eq!(address.settings.picture, Picture::Png);
        assert_eq!(address.settings.timeout, Duration::from_secs(90));
        assert_eq!(address.to_string(), text);

        let plain: Address = "openai+http://localhost:1234/v1".parse().unwrap();
        assert_eq!((plain.dialect, plain.model), (None, None));
        assert_eq!(plain.settings, Settings::default());
        // A folder on the server's machine, spelled as the server wants it.
        let folder: Address = "transformers+http://h/v1#/srv/my models/a%20b#c".parse().unwrap();
        assert_eq!(folder.model.as_deref(), Some("/srv/my models/a%20b#c"));
    }

    #[test]
    fn what_is_no_address_is_told_apart_from_what_is_a_wrong_one() {
        assert!(Address::is_meant("openai+https://api.example.org/v1#m"));
        assert!(Address::is_meant("vlm+http://h/v1"));
        for other in ["hf://Qwen/Qwen2.5-VL-7B-Instruct", "s3://b/m", "models/a+http", "https://h/m"] {
            assert!(!Address::is_meant(other), "{other}");
        }
        assert!(refused("vlm+http://h/v1").contains("vllm"), "{}", refused("vlm+http://h/v1"));
        assert!(refused("vllm+ftp://h/v1").contains("http://HOST"));
        assert!(refused("vllm+http://h/v1?imege=png").contains("imege"));
    }

    #[test]
    fn passwords_are_refused_and_not_repeated() {
        let said = refused("openai+https://me:hunter2@h/v1#m");
        assert!(said.contains("SPECTEMP_TARGET_API_KEY") && !said.contains("hunter2"), "{said}");
        let said = refused("wrong+https://me:hunter2@h/v1#m");
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        let address = |text: &str| text.parse::<Address>().unwrap();
        let ours = address("vllm+https://h/v1#a");
        assert!(ours.same_origin(&address("openai+https://h:443/other/v1#b")));
        for other in ["vllm+http://h/v1", "vllm+https://h:444/v1", "vllm+https://h.evil/v1"] {
            assert!(!ours.same_origin(&address(other)), "{other}");
        }
    }
}
