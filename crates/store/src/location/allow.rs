//! What a server may open: buckets, prefixes in them, local folders, parts of web sites. A user of the API names videos
//! and result folders, so every URI is checked here before a client is asked for it, and every redirect of a web server
//! before it is followed. The command line has no list: it opens what its user names.

use spectemp_types::VideoUri;
use url::Url;

use super::{
    LocationError,
    place::Place,
    prefix::{has_parent, real_path, within},
};

/// Prefixes that may be opened; an empty list allows nothing.
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    prefixes: Vec<VideoUri>,
}

impl AllowList {
    /// Reads prefixes such as `s3://bucket`, `s3://bucket/prefix/`, `/srv/videos/`, `https://host/archive/`. Each is a
    /// folder: `s3://bucket/a` allows `s3://bucket/a/x`, not `s3://bucket/ab`.
    ///
    /// # Errors
    /// A prefix that cannot be opened, holds `..`, user info or a query.
    pub fn parse<T: AsRef<str>>(prefixes: impl IntoIterator<Item = T>) -> Result<Self, LocationError> {
        let prefixes = prefixes.into_iter().map(|text| prefix(text.as_ref().trim()));
        Ok(Self { prefixes: prefixes.collect::<Result<_, _>>()? })
    }

    /// The place to open for `uri`: for a local path the real one, with all symlinks followed, so that what was checked
    /// is what is opened.
    pub(super) fn permit(&self, uri: &VideoUri) -> Result<Place, LocationError> {
        let forbidden = || LocationError::Forbidden { uri: uri.redacted() };
        // A name that cannot be read is not told apart from a forbidden one.
        let place = Place::of(uri).map_err(|_| forbidden())?;
        if let Place::Http(url) = &place
            && (has_user_info(url) || hides_parents(url.path()))
        {
            return Err(forbidden());
        }
        if !self.prefixes.iter().any(|prefix| within(prefix, uri).is_ok()) {
            return Err(forbidden());
        }
        Ok(match place {
            Place::Local(path) => Place::Local(real_path(&path).ok_or_else(forbidden)?),
            place => place,
        })
    }

    /// True where a redirect to `url` may be followed.
    pub(super) fn permits_url(&self, url: &Url) -> bool {
        VideoUri::parse(url.as_str()).is_ok_and(|uri| self.permit(&uri).is_ok())
    }
}

fn prefix(text: &str) -> Result<VideoUri, LocationError> {
    let uri = VideoUri::parse(text)?;
    let bad = |cause: &str| LocationError::Name { uri: uri.redacted(), cause: cause.to_owned() };
    if has_parent(text) {
        return Err(bad("a prefix to allow cannot hold `..`"));
    }
    if let Place::Http(url) = Place::of(&uri)?
        && (has_user_info(&url) || url.query().is_some() || url.fragment().is_some())
    {
        return Err(bad("a prefix to allow holds no user, query or fragment"));
    }
    Ok(uri)
}

fn has_user_info(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// True where `..` appears in the path when it is decoded once more than it should be: some servers do.
fn hides_parents(path: &str) -> bool {
    let mut text = path.to_ascii_lowercase();
    for _ in 0..4 {
        if has_parent(&text) {
            return true;
        }
        let decoded = text.replace("%25", "%").replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
        if decoded == text {
            return false;
        }
        text = decoded;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> AllowList {
        AllowList::parse(["s3://videos/in/", "gs://open", "https://media.example/archive/", "/srv/videos"])
            .unwrap()
    }

    fn allowed(text: &str) -> bool {
        VideoUri::parse(text).is_ok_and(|uri| list().permit(&uri).is_ok())
    }

    #[test]
    fn what_lies_in_a_prefix_is_allowed() {
        for text in [
            "s3://videos/in/a.mp4",
            "s3a://videos/in/b/a%20b.mp4",
            "gs://open/a.mp4",
            "https://media.example/archive/a.mp4?X-Amz-Signature=1",
            "https://media.example:443/archive/x/a.mp4",
            "/srv/videos/a.mp4",
            "file:///srv/videos/x/a.mp4",
        ] {
            assert!(allowed(text), "{text}");
        }
    }

    #[test]
    fn nothing_else_is_allowed() {
        for text in [
            // Other buckets, neighbours of a prefix, the prefix itself.
            "s3://other/in/a.mp4",
            "s3://videos/inner/a.mp4",
            "s3://videos/in",
            "s3://videos/in/",
            "s3://Videos/in/a.mp4",
            "gs://videos/in/a.mp4",
            "az://videos/in/a.mp4",
            // Ways up, written and encoded.
            "s3://videos/in/../secret.mp4",
            "s3://videos/in/%2e%2e/secret.mp4",
            "s3://videos/in/%2E%2e%2fsecret.mp4",
            "s3://videos/in//a.mp4",
            "s3://videos/in/./a.mp4",
            "s3://videos%2fin/a.mp4",
            "s3://user@videos/in/a.mp4",
            "s3://user:pw@videos/in/a.mp4",
            "s3://videos:80/in/a.mp4",
            // Other hosts, schemes, ports, users.
            "http://media.example/archive/a.mp4",
            "https://media.example:8443/archive/a.mp4",
            "https://media.example.evil/archive/a.mp4",
            "https://evil/archive/a.mp4",
            "https://media.example@evil/archive/a.mp4",
            "https://user@media.example/archive/a.mp4",
            "https://user:pw@media.example/archive/a.mp4",
            "https://media.example\\@evil/archive/a.mp4",
            "https://media.example/archive/../secret",
            "https://media.example/archive/%2e%2e/secret",
            "https://media.example/archive/..%2fsecret",
            "https://media.example/archive/%252e%252e%252fsecret",
            "https://media.example/archive/%25252e%25252e/secret",
            "https://media.example/archive/..%5csecret",
            "https://media.example/archive",
            "https://media.example/archives/a.mp4",
            "http://169.254.169.254/latest/meta-data/iam",
            "http://[::ffff:169.254.169.254]/latest/meta-data/iam",
            "http://127.0.0.1:5432/x",
            "http://localhost/x",
            // Local files.
            "/etc/passwd",
            "file:///etc/passwd",
            "file://localhost/etc/passwd",
            "/srv/videos/../secret",
            "file:///srv/videos/%2e%2e/secret",
            "file:///srv/videos/..%2fsecret",
            "/srv/videos2/a.mp4",
            "/srv/videos",
            "~/a.mp4",
            "a.mp4",
            "../srv/videos/a.mp4",
            "/proc/self/environ",
            "/proc/self/root/srv/videos/../../etc/passwd",
        ] {
            assert!(!allowed(text), "{text}");
        }
        assert!(AllowList::default().permit(&VideoUri::parse("/srv/videos/a.mp4").unwrap()).is_err());
    }

    #[test]
    fn a_prefix_that_says_more_than_where_is_refused() {
        for text in
            ["", "ftp://x/", "s3://b/../c", "https://u:p@h/x/", "https://h/x?token=1", "https://h/%2e%2e/"]
        {
            assert!(AllowList::parse([text]).is_err(), "{text}");
        }
    }

    #[test]
    fn the_real_path_is_what_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("in/sub")).unwrap();
        std::fs::write(root.join("in/sub/a.mp4"), "x").unwrap();
        std::fs::write(root.join("secret"), "x").unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, root.join(at)).unwrap();
        link("sub/a.mp4", "in/inside.mp4");
        link("../secret", "in/outside.mp4");
        link("../later", "in/dangling.mp4");
        link("loop.mp4", "in/loop.mp4");
        link("..", "in/up");
        let list = AllowList::parse([root.join("in").to_str().unwrap()]).unwrap();
        let permit =
            |name: &str| list.permit(&VideoUri::parse(root.join("in").join(name).to_str().unwrap()).unwrap());
        assert_eq!(permit("inside.mp4").unwrap(), Place::Local(root.join("in/sub/a.mp4")));
        assert_eq!(permit("new/file.parquet").unwrap(), Place::Local(root.join("in/new/file.parquet")));
        // A dangling link would let a writer make a file outside.
        for name in ["outside.mp4", "dangling.mp4", "loop.mp4", "up/secret", "up/new", "up/in/../secret"] {
            assert!(matches!(permit(name), Err(LocationError::Forbidden { .. })), "{name}");
        }
    }
}
