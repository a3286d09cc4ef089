//! A URI taken apart: a local path, a bucket and key, or a URL.

use std::path::{Component, Path, PathBuf};

use spectemp_types::VideoUri;
use url::Url;

use super::LocationError;

/// Which kind of bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cloud {
    S3,
    Google,
    Azure,
}

impl Cloud {
    fn of(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::Google),
            "az" | "azure" | "abfs" | "abfss" => Some(Self::Azure),
            _ => None,
        }
    }

    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

/// Where something lies.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// An absolute path without `.` and `..`.
    Local(PathBuf),
    /// A bucket (for Azure `container@account` too) and a decoded key.
    Bucket { cloud: Cloud, authority: String, key: String },
    /// A URL, query and all.
    Http(Url),
}

impl Place {
    pub(super) fn of(uri: &VideoUri) -> Result<Self, LocationError> {
        let text = uri.expose();
        let fail = |cause: &str| LocationError::Name { uri: uri.redacted(), cause: cause.to_owned() };
        let Some((scheme, rest)) = text.split_once("://") else {
            return local(Path::new(text)).map(Self::Local).map_err(|cause| fail(&cause.to_string()));
        };
        let scheme = scheme.to_ascii_lowercase();
        if scheme == "file" {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(fail("a file URI has no host: write file:///folder/name"));
            }
            let path = PathBuf::from(decoded(path).ok_or_else(|| fail("its path does not decode to text"))?);
            return local(&path).map(Self::Local).map_err(|cause| fail(&cause.to_string()));
        }
        match Cloud::of(&scheme) {
            Some(cloud) => {
                let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
                if authority.is_empty() {
                    return Err(fail("it names no bucket"));
                }
                let key =
                    decoded(&format!("/{key}")).ok_or_else(|| fail("its key does not decode to text"))?;
                let key = key.trim_matches('/').to_owned();
                if !key.is_empty() && key.split('/').any(|part| matches!(part, "" | "." | "..")) {
                    return Err(fail("a key cannot have empty, `.` or `..` parts"));
                }
                Ok(Self::Bucket { cloud, authority: authority.to_owned(), key })
            }
            None => Url::parse(text).map(Self::Http).map_err(|cause| fail(&cause.to_string())),
        }
    }

    /// The URI of this place; [`Place::of`] gives the same place again.
    pub(super) fn uri(&self) -> Result<VideoUri, LocationError> {
        let text = match self {
            Self::Local(path) => path.to_string_lossy().into_owned(),
            Self::Bucket { cloud, authority, key } => {
                let scheme = if authority.contains('@') { "abfss" } else { cloud.scheme() };
                format!("{scheme}://{authority}{}", encoded_path(key))
            }
            Self::Http(url) => url.to_string(),
        };
        Ok(VideoUri::parse(&text)?)
    }
}

/// `uri` in the one form that rows and batches use: a path is absolute, `~` and `file://` are resolved to paths, and
/// the special characters of a key are encoded. URLs stay as they are.
///
/// # Errors
/// A location that cannot be opened.
pub fn normalize(uri: &VideoUri) -> Result<VideoUri, LocationError> {
    Place::of(uri)?.uri()
}

/// The path of a local file or folder; `None` for what lies elsewhere.
pub(crate) fn local_path(uri: &VideoUri) -> Result<Option<PathBuf>, LocationError> {
    Ok(match Place::of(uri)? {
        Place::Local(path) => Some(path),
        _ => None,
    })
}

/// The key that all objects in the folder `uri` begin with: empty, or with a closing slash. For a local folder its path,
/// for a web server nothing can be listed.
pub(crate) fn folder_key(uri: &VideoUri) -> Result<String, LocationError> {
    let key = match Place::of(uri)? {
        Place::Local(path) => path.to_string_lossy().trim_matches('/').to_owned(),
        Place::Bucket { key, .. } => key,
        Place::Http(_) => {
            let cause = "a web server cannot be listed: give a bucket or a folder".to_owned();
            return Err(LocationError::Name { uri: uri.redacted(), cause });
        }
    };
    Ok(if key.is_empty() { key } else { format!("{key}/") })
}

/// The object with the key `key` (as a listing gives it) in the bucket or file system of `uri`.
pub(crate) fn object_in(uri: &VideoUri, key: &str) -> Result<VideoUri, LocationError> {
    let place = match Place::of(uri)? {
        Place::Local(_) => Place::Local(Path::new("/").join(key)),
        Place::Bucket { cloud, authority, .. } => Place::Bucket { cloud, authority, key: key.to_owned() },
        place @ Place::Http(_) => place,
    };
    let found = place.uri()?;
    // Keys with empty, `.` or `..` parts have no URI that leads back to them.
    if Place::of(&found)? == place {
        return Ok(found);
    }
    let cause = format!("the key {key:?} has no form that can be opened");
    Err(LocationError::Name { uri: uri.redacted(), cause })
}

/// `path` absolute, with `~` for the user's home, without `.`, `..` and doubled slashes.
fn local(path: &Path) -> std::io::Result<PathBuf> {
    let path = match path.strip_prefix("~") {
        Ok(rest) => match std::env::var_os("HOME") {
            Some(home) => Path::new(&home).join(rest),
            None => path.to_owned(),
        },
        Err(_) => path.to_owned(),
    };
    let path = std::path::absolute(path)?;
    if !path.components().any(|part| part == Component::ParentDir) {
        return Ok(path.components().collect());
    }
    // `..` after a symlink leads to the target's parent: the system knows, unless the file is not there.
    Ok(path.canonicalize().unwrap_or_else(|_| without_parents(&path)))
}

fn without_parents(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

/// A part of a URI with `%XX` decoded, where these are valid escapes.
pub(crate) fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// `/name/name` with everything encoded that would end the path or be decoded again.
fn encoded_path(key: &str) -> String {
    let mut text = String::from("/");
    for letter in key.chars() {
        match letter {
            '%' => text.push_str("%25"),
            '#' => text.push_str("%23"),
            '?' => text.push_str("%3F"),
            ' ' => text.push_str("%20"),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::of(&VideoUri::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn names_are_read_as_documented() {
        let cases = [
            ("/v/a b#1?x%20.mp4", "/v/a b#1?x%20.mp4"),
            ("file:///v/a%20b.mp4", "/v/a b.mp4"),
            ("file:///v/a#1?.mp4", "/v/a#1?.mp4"),
            ("file://localhost/v/100%.mp4", "/v/100%.mp4"),
            ("/v/./x/../ü.mp4", "/v/ü.mp4"),
            ("/v//x.mp4", "/v/x.mp4"),
        ];
        for (text, path) in cases {
            assert_eq!(place(text), Place::Local(path.into()), "{text}");
        }
        let Place::Bucket { cloud, authority, key } = place("s3a://b/x y/a%23b#c?d.mp4") else { panic!() };
        assert_eq!((cloud, authority.as_str(), key.as_str()), (Cloud::S3, "b", "x y/a#b#c?d.mp4"));
        assert!(Place::of(&VideoUri::parse("file://host/x").unwrap()).is_err());
    }

    #[test]
    fn relative_paths_and_the_home_sign_become_absolute() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(place("a/b.mp4"), Place::Local(here.join("a/b.mp4")));
        let home = PathBuf::from(std::env::var("HOME").unwrap());
        assert_eq!(place("~/b.mp4"), Place::Local(home.join("b.mp4")));
    }

    #[test]
    fn a_normal_form_is_a_fixed_point_and_survives_redaction() {
        for text in [
            "s3://b/a#1 ü%?.mp4",
            "/v/a#?%20.mp4",
            "abfss://c@acc.dfs.core.windows.net/x y.mp4",
            "gs://b/x%2520.mp4",
        ] {
            let uri = VideoUri::parse(text).unwrap();
            let normal = normalize(&uri).unwrap();
            assert_eq!(place(normal.expose()), place(text), "{text}");
            // What rows hold is the redacted text: it must lead to the same object.
            assert_eq!(place(&normal.redacted()), place(text), "{text}");
            assert_eq!(normalize(&normal).unwrap(), normal);
        }
        let signed = VideoUri::parse("https://h/a%20b.mp4?sig=1").unwrap();
        assert_eq!(normalize(&signed).unwrap().expose(), signed.expose());
    }
}
