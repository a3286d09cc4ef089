//! A folder of any kind as a fence (`--videos`) and as a place to join names to (`--results`).

use std::path::{Path, PathBuf};

use spectemp_types::VideoUri;

use super::{
    LocationError,
    place::{Place, normalize},
};

/// `video` of a job's line: a name relative to `prefix`, or a path or URI inside it.
///
/// # Errors
/// [`LocationError::Outside`] for anything that leaves the prefix.
pub fn under(prefix: &VideoUri, video: &str) -> Result<VideoUri, LocationError> {
    if video.contains("://") || video.starts_with(['/', '~']) {
        let uri = normalize(&VideoUri::parse(video)?)?;
        // What was written is checked too: the normal form has no `..` left to see.
        if has_parent(video) {
            return Err(outside(prefix, &uri.redacted()));
        }
        within(prefix, &uri)?;
        return Ok(uri);
    }
    let uri = join(prefix, video)?;
    within(prefix, &uri)?;
    Ok(uri)
}

/// Checks that `uri` lies in `prefix`: same kind, same bucket or host, no `..`, and for local folders no symlink that
/// leads out.
///
/// # Errors
/// [`LocationError::Outside`].
pub fn within(prefix: &VideoUri, uri: &VideoUri) -> Result<(), LocationError> {
    let inside = !has_parent(uri.expose())
        && match (Place::of(prefix)?, Place::of(uri)?) {
            (Place::Local(folder), Place::Local(path)) => {
                let (folder, path) = (real_path(&folder), real_path(&path));
                folder.zip(path).is_some_and(|(folder, path)| path != folder && path.starts_with(folder))
            }
            (
                Place::Bucket { cloud, authority, key: folder },
                Place::Bucket { cloud: other_cloud, authority: other_authority, key },
            ) => cloud == other_cloud && authority == other_authority && below(&folder, &key),
            (Place::Http(folder), Place::Http(url)) => {
                folder.origin() == url.origin()
                    && below(folder.path().trim_matches('/'), url.path().trim_start_matches('/'))
            }
            _ => false,
        };
    if inside { Ok(()) } else { Err(outside(prefix, &uri.redacted())) }
}

/// The object `name` in the folder `prefix`. The name is taken as it is written, nothing in it is decoded; a query of
/// the prefix (a token) is kept.
///
/// # Errors
/// [`LocationError::Outside`] for a name that leaves the folder, an empty one, or an empty part.
pub fn join(prefix: &VideoUri, name: &str) -> Result<VideoUri, LocationError> {
    let bad = |part: &str| matches!(part, "" | "." | "..");
    let parts: Vec<&str> = name.split('/').filter(|part| *part != ".").collect();
    if parts.is_empty() || parts.iter().any(|part| bad(part)) || name.chars().any(char::is_control) {
        return Err(outside(prefix, name));
    }
    let place = match Place::of(prefix)? {
        Place::Local(folder) => Place::Local(parts.iter().fold(folder, |path, part| path.join(part))),
        Place::Bucket { cloud, authority, key } => {
            let key = if key.is_empty() { parts.join("/") } else { format!("{key}/{}", parts.join("/")) };
            Place::Bucket { cloud, authority, key }
        }
        Place::Http(mut url) => {
            if let Ok(mut path) = url.path_segments_mut() {
                path.pop_if_empty().extend(parts);
            }
            Place::Http(url)
        }
    };
    place.uri()
}

/// The name of the batch whose results go to `results`: its normal form without query and closing slash.
///
/// # Errors
/// A location that cannot be opened.
pub fn batch_name(results: &VideoUri) -> Result<String, LocationError> {
    let text = normalize(results)?.redacted();
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { text } else { trimmed.to_owned() })
}

fn outside(prefix: &VideoUri, uri: &str) -> LocationError {
    LocationError::Outside { uri: uri.to_owned(), prefix: prefix.redacted() }
}

/// True where a part of the path is `..`, written or encoded.
pub(super) fn has_parent(text: &str) -> bool {
    let path = if text.starts_with("http") { text.split(['?', '#']).next().unwrap_or(text) } else { text };
    path.to_ascii_lowercase()
        .replace("%2e", ".")
        .replace("%2f", "/")
        .split(['/', '\\'])
        .any(|part| part == "..")
}

/// True where `key` lies in the folder `folder` (and is not the folder itself).
fn below(folder: &str, key: &str) -> bool {
    match key.strip_prefix(folder) {
        Some(rest) if folder.is_empty() => !rest.is_empty(),
        Some(rest) => rest.len() > 1 && rest.starts_with('/'),
        None => false,
    }
}

/// `path` with all symlinks followed; for what does not exist, its nearest existing parent's. `None` where a symlink
/// leads to nothing: who writes through it makes a file that nobody has checked.
pub(super) fn real_path(path: &Path) -> Option<PathBuf> {
    let mut existing = path;
    let mut missing = Vec::new();
    loop {
        if let Ok(real) = existing.canonicalize() {
            return Some(missing.iter().rev().fold(real, |path: PathBuf, part| path.join(part)));
        }
        if existing.is_symlink() {
            return None;
        }
        match (existing.parent(), existing.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name);
                existing = parent;
            }
            _ => return Some(path.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> VideoUri {
        VideoUri::parse(text).unwrap()
    }

    #[test]
    fn nothing_leaves_a_bucket_or_host_prefix() {
        let cases = [
            ("s3://b/in", "a.mp4", true),
            ("s3://b/in/", "x/a b#?%20.mp4", true),
            ("s3://b/in", "s3://b/in/a.mp4", true),
            ("s3://b", "a.mp4", true),
            ("s3://b/in", "../a.mp4", false),
            ("s3://b/in", "x/../../a.mp4", false),
            ("s3://b/in", "s3://b/in/../a.mp4", false),
            ("s3://b/in", "s3://b/in/%2e%2e/a.mp4", false),
            ("s3://b/in", "s3://b/inner/a.mp4", false),
            ("s3://b/in", "s3://c/in/a.mp4", false),
            ("s3://b/in", "gs://b/in/a.mp4", false),
            ("s3://b/in", "/in/a.mp4", false),
            ("s3://b/in", "", false),
            ("https://h/in", "https://h/in/a.mp4?sig=1", true),
            ("https://h/in", "https://h:8443/in/a.mp4", false),
            ("https://h/in", "http://h/in/a.mp4", false),
            ("https://h/in", "https://h/in/..%2fa.mp4", false),
            ("https://h/in", "https://h/in/a.mp4?x=../y", true),
        ];
        for (prefix, video, inside) in cases {
            assert_eq!(
                under(&uri(prefix), video).is_ok(),
                inside,
                "{prefix} {video}: {:?}",
                under(&uri(prefix), video)
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_leaves_a_prefix(name in "(\\.|/|\\\\|%2e|%2F|a|~|#|\\?|s3://b/in|/in|://){0,8}") {
            for prefix in ["s3://b/in", "/in", "https://h/in"] {
                let Ok(uri) = under(&uri(prefix), &name) else { continue };
                let path = match Place::of(&uri).unwrap() {
                    Place::Local(path) => path.to_str().unwrap().to_owned(),
                    Place::Bucket { authority, key, .. } => format!("/{}{key}", if authority == "b" { "" } else { "other/" }),
                    Place::Http(url) => format!("{}{}", if url.host_str() == Some("h") { "" } else { "other" }, url.path()),
                };
                proptest::prop_assert!(path.starts_with("/in/"), "{prefix} {name:?} {path}");
                proptest::prop_assert!(path.split('/').all(|part| part != ".." && part != "."), "{prefix} {name:?} {path}");
            }
        }
    }

    #[test]
    fn joined_names_are_literal_and_a_token_stays() {
        assert_eq!(
            join(&uri("https://h/in?token=1"), "a b%20#.mp4").unwrap().expose(),
            "https://h/in/a%20b%2520%23.mp4?token=1"
        );
        assert_eq!(join(&uri("s3://b/in"), "a%20.mp4").unwrap().expose(), "s3://b/in/a%2520.mp4");
        assert_eq!(join(&uri("/in/"), "./x/a%20.mp4").unwrap().expose(), "/in/x/a%20.mp4");
    }

    #[test]
    fn symlinks_out_of_a_folder_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret.mp4"), "x").unwrap();
        std::fs::write(inside.join("sub/a.mp4"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), inside.join("out")).unwrap();
        std::os::unix::fs::symlink("sub/a.mp4", inside.join("alias.mp4")).unwrap();
        let prefix = uri(inside.to_str().unwrap());
        assert!(under(&prefix, "sub/a.mp4").is_ok());
        assert!(under(&prefix, "alias.mp4").is_ok());
        assert!(under(&prefix, "missing.mp4").is_ok());
        for out in ["out/secret.mp4", "out/missing.mp4", "../secret.mp4", "/etc/passwd", "~/x.mp4"] {
            assert!(matches!(under(&prefix, out), Err(LocationError::Outside { .. })), "{out}");
        }
    }

    #[test]
    fn a_batch_is_named_by_where_its_results_go() {
        assert_eq!(batch_name(&uri("/r/x/../y/")).unwrap(), "/r/y");
        assert_eq!(batch_name(&uri("s3://b/r/?")).unwrap(), "s3://b/r/%3F");
        assert_eq!(batch_name(&uri("s3://b/r/")).unwrap(), "s3://b/r");
    }
}
