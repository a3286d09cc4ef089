//! The key that a server asks for. It is never printed: not by `Debug`, not in errors, not in what a server says.

use std::fmt;

use reqwest::header::HeaderValue;

use crate::RemoteError;

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; white space around it is dropped.
    ///
    /// # Errors
    /// One that no HTTP header can carry.
    pub fn new(key: &str) -> Result<Self, RemoteError> {
        let key = Self(key.trim().to_owned());
        if key.0.is_empty() || key.0.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(RemoteError::Key);
        }
        Ok(key)
    }

    /// The header's value, marked so that no log shows it.
    pub(crate) fn header(&self) -> Result<HeaderValue, RemoteError> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).map_err(|_| RemoteError::Key)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// `text` without the key: servers repeat what they refuse.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        text.replace(&self.0, "…")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_shown() {
        let key = ApiKey::new(" sk-123 \n").unwrap();
        assert!(!format!("{key:?} {:?}", key.header().unwrap()).contains("123"));
        assert_eq!(key.hidden_in("Incorrect API key provided: sk-123."), "Incorrect API key provided: ….");
        for wrong in ["", "  ", "two words", "new\nline", "schlüssel"] {
            let said = ApiKey::new(wrong).unwrap_err().to_string();
            assert!(wrong.trim().is_empty() || !said.contains(wrong), "{said}");
        }
    }
}
