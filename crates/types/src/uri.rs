//! Where a video lies. The query of a URL may hold a signature, so it is never shown, logged or stored:
//! `Display` and `Serialize` leave it out, and only [`VideoUri::expose`] gives the whole text.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// A URI that `object_store` can open (`file`, `s3`, `gs`, `az`, `http`, `https`) or a plain path.
#[derive(Clone, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(with = "String")]
pub struct VideoUri {
    text: String,
}

/// Why a text is no video URI.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UriError {
    /// The text is empty.
    #[error("video URI is empty: give a path or a URI such as s3://bucket/key.mp4")]
    Empty,
    /// The scheme is none that can be opened.
    #[error("video URI {uri:?} has the scheme {scheme:?}: use a path, file, s3, gs, az, http or https")]
    Scheme {
        /// The URI without its query.
        uri: String,
        /// What stands before `://`.
        scheme: String,
    },
    /// A URL that does not parse.
    #[error("video URI {uri:?} is not a URL: {cause}")]
    Syntax {
        /// The URI without its query.
        uri: String,
        /// What the URL parser says.
        cause: String,
    },
    /// Control characters never belong into a location.
    #[error("video URI {0:?} holds control characters")]
    Control(String),
}

const SCHEMES: [&str; 10] = ["file", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "http", "https"];

impl VideoUri {
    /// Reads a URI or a plain path.
    ///
    /// # Errors
    /// An empty text, a control character, an unknown scheme, or a URL that does not parse.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if text.trim().is_empty() {
            return Err(UriError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(UriError::Control(without_query(text).to_owned()));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            let shown = without_query(text).to_owned();
            if !SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) {
                return Err(UriError::Scheme { uri: shown, scheme: scheme.to_owned() });
            }
            Url::parse(text).map_err(|cause| UriError::Syntax { uri: shown, cause: cause.to_string() })?;
        }
        Ok(Self { text: text.to_owned() })
    }

    /// The whole text, signature and all: for opening the object, never for a log or a row.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The text without user info and query.
    pub fn redacted(&self) -> String {
        match Url::parse(&self.text) {
            Ok(mut url) if self.text.contains("://") && url.scheme() != "file" => {
                url.set_query(None);
                url.set_fragment(None);
                if !matches!(url.scheme(), "abfs" | "abfss") {
                    let _ = url.set_username("");
                }
                let _ = url.set_password(None);
                url.to_string()
            }
            _ => self.text.clone(),
        }
    }

    /// True for a plain path, which has no scheme.
    pub fn is_path(&self) -> bool {
        !self.text.contains("://")
    }
}

/// The part before `?`, for http(s) only: a path may hold a question mark.
fn without_query(text: &str) -> &str {
    match (text.contains("://"), text.split_once('?')) {
        (true, Some((before, _))) => before,
        _ => text,
    }
}

impl fmt::Display for VideoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for VideoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VideoUri({:?})", self.redacted())
    }
}

impl Serialize for VideoUri {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

impl<'de> Deserialize<'de> for VideoUri {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_never_shown() {
        let uri = VideoUri::parse("https://me:pw@host/a%20b.mp4?X-Amz-Signature=secret#f").unwrap();
        assert_eq!(uri.to_string(), "https://host/a%20b.mp4");
        assert!(!format!("{uri:?}").contains("secret"));
        assert_eq!(serde_json::to_string(&uri).unwrap(), "\"https://host/a%20b.mp4\"");
        assert!(uri.expose().contains("secret"));
    }

    #[test]
    fn paths_keep_question_marks() {
        let uri = VideoUri::parse("/videos/what?.mp4").unwrap();
        assert_eq!(uri.to_string(), "/videos/what?.mp4");
        assert!(uri.is_path());
    }

    #[test]
    fn unknown_schemes_and_control_characters_are_refused() {
        assert!(
            matches!(VideoUri::parse("ftp://host/x?token=1"), Err(UriError::Scheme { uri, .. }) if uri == "ftp://host/x")
        );
        assert!(matches!(VideoUri::parse("a\u{0}b"), Err(UriError::Control(_))));
        assert_eq!(VideoUri::parse("  "), Err(UriError::Empty));
    }
}
