//! Credentials, region and endpoint of S3: from the environment where they stand there, else through the chain that the
//! AWS tools share (profiles, SSO, `credential_process`, web identity, container and instance roles).
//!
//! `object_store` asks for credentials before every request; the chain may run a process or call a server each time.
//! [`AwsChain`] keeps what it got until shortly before it expires, and goes on with it while it is still good if it
//! cannot be renewed.

#![expect(deprecated, reason = "aws-config takes profile files in no other type")]

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_config::{
    BehaviorVersion, Region,
    meta::region::ProvideRegion as _,
    profile::{
        ProfileFileRegionProvider,
        profile_file::{ProfileFileKind, ProfileFiles},
    },
};
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use futures::FutureExt as _;
use object_store::{CredentialProvider, aws::AwsCredential};
use tokio::sync::{Mutex, OnceCell};

/// Credentials are renewed so long before they expire.
const RENEW_BEFORE: Duration = Duration::from_secs(120);
/// What S3 and its clients take where nothing names a region.
const DEFAULT_REGION: &str = "us-east-1";

/// What the environment says about S3.
#[derive(Clone, Debug)]
pub(super) struct AwsSettings {
    environment: Arc<HashMap<String, String>>,
}

impl AwsSettings {
    pub(super) fn new(environment: Arc<HashMap<String, String>>) -> Self {
        Self { environment }
    }

    fn value(&self, names: &[&str]) -> Option<&str> {
        names
            .iter()
            .find_map(|name| self.environment.get(*name))
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    fn flag(&self, name: &str) -> bool {
        self.value(&[name]).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "1"))
    }

    /// The server, where it is not Amazon's.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.value(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
    }

    /// True where the environment names an endpoint without TLS, or allows it outright.
    pub(super) fn over_http(&self) -> bool {
        self.endpoint().is_some_and(|url| url.to_ascii_lowercase().starts_with("http://"))
            || self.flag("AWS_ALLOW_HTTP")
    }

    /// True where the bucket is a part of the path, as most servers besides Amazon's want it.
    pub(super) fn path_style(&self) -> bool {
        !self.flag("AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
    }

    /// True where requests go unsigned (public buckets).
    pub(super) fn unsigned(&self) -> bool {
        self.flag("AWS_SKIP_SIGNATURE")
    }

    /// Key id, secret and session token of the environment.
    pub(super) fn keys(&self) -> Option<(&str, &str, Option<&str>)> {
        let key = self.value(&["AWS_ACCESS_KEY_ID"])?;
        Some((key, self.value(&["AWS_SECRET_ACCESS_KEY"])?, self.value(&["AWS_SESSION_TOKEN", "AWS_TOKEN"])))
    }

    /// The region of the environment, else of the profile.
    pub(super) fn region(&self) -> String {
        if let Some(region) = self.value(&["AWS_REGION", "AWS_DEFAULT_REGION"]) {
            return region.to_owned();
        }
        let mut profile = ProfileFileRegionProvider::builder();
        if let Some(files) = self.profile_files() {
            profile = profile.profile_files(files);
        }
        if let Some(name) = self.value(&["AWS_PROFILE"]) {
            profile = profile.profile_name(name);
        }
        // The profile files are read without waiting; what would wait counts as not there.
        let region = profile.build().region().now_or_never().flatten();
        region.map_or_else(|| DEFAULT_REGION.to_owned(), |region| region.to_string())
    }

    /// The profile files that the environment names; the usual ones where it names none.
    fn profile_files(&self) -> Option<ProfileFiles> {
        let config = self.value(&["AWS_CONFIG_FILE"]);
        let credentials = self.value(&["AWS_SHARED_CREDENTIALS_FILE"]);
        if config.is_none() && credentials.is_none() {
            return None;
        }
        let mut files = ProfileFiles::builder();
        // A file that is not there counts as empty, as the AWS tools have it.
        files = match config {
            Some(path) if Path::new(path).is_file() => files.with_file(ProfileFileKind::Config, path),
            Some(_) => files,
            None => files.include_default_config_file(true),
        };
        files = match credentials {
            Some(path) if Path::new(path).is_file() => files.with_file(ProfileFileKind::Credentials, path),
            Some(_) => files,
            None => files.include_default_credentials_file(true),
        };
        Some(files.build())
    }

    async fn provider(&self) -> Option<SharedCredentialsProvider> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(Region::new(self.region()));
        if let Some(files) = self.profile_files() {
            loader = loader.profile_files(files);
        }
        if let Some(name) = self.value(&["AWS_PROFILE"]) {
            loader = loader.profile_name(name);
        }
        loader.load().await.credentials_provider()
    }
}

struct Kept {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
}

impl Kept {
    fn shared(&self) -> (Arc<AwsCredential>, Option<SystemTime>) {
        (Arc::clone(&self.credential), self.expires)
    }

    fn good_for(&self, margin: Duration) -> bool {
        self.expires.is_none_or(|expires| SystemTime::now() + margin < expires)
    }
}

fn no_credentials(cause: &str) -> object_store::Error {
    let advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, a role, or AWS_SKIP_SIGNATURE=true for \
                  a public bucket";
    object_store::Error::Generic { store: "S3", source: format!("no credentials ({advice}): {cause}").into() }
}

/// See the module. One for all buckets.
pub(super) struct AwsChain {
    settings: AwsSettings,
    provider: OnceCell<Option<SharedCredentialsProvider>>,
    // Held while credentials are fetched: many requests at once ask for them only once.
    kept: Mutex<Option<Kept>>,
}

impl AwsChain {
    pub(super) fn new(settings: AwsSettings) -> Self {
        Self { settings, provider: OnceCell::new(), kept: Mutex::new(None) }
    }

    #[cfg(test)]
    fn over(provider: SharedCredentialsProvider) -> Self {
        let settings = AwsSettings::new(Arc::default());
        Self { settings, provider: OnceCell::new_with(Some(Some(provider))), kept: Mutex::new(None) }
    }

    /// What is good now, and until when.
    pub(super) async fn current(&self) -> object_store::Result<(Arc<AwsCredential>, Option<SystemTime>)> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| kept.good_for(RENEW_BEFORE)) {
            return Ok(kept.shared());
        }
        match self.fetch().await {
            Ok(fetched) => Ok(kept.insert(fetched).shared()),
            Err(cause) => match kept.as_ref().filter(|kept| kept.good_for(Duration::ZERO)) {
                Some(kept) => {
                    tracing::warn!(error = cause, "credentials for S3 cannot be renewed yet");
                    Ok(kept.shared())
                }
                None => Err(no_credentials(&cause)),
            },
        }
    }

    async fn fetch(&self) -> Result<Kept, String> {
        let provider = self.provider.get_or_init(|| self.settings.provider()).await;
        let provider = provider.as_ref().ok_or("the chain of credentials is switched off")?;
        let found = provider.provide_credentials().await.map_err(|error| super::redacted_cause(&error))?;
        let credential = AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        };
        Ok(Kept { credential: Arc::new(credential), expires: found.expiry() })
    }
}

impl fmt::Debug for AwsChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsChain")
    }
}

#[async_trait]
impl CredentialProvider for AwsChain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.current().await.map(|(credential, _)| credential)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use aws_credential_types::{
        Credentials,
        provider::{ProvideCredentials, error::CredentialsError, future},
    };

    use super::*;

    /// Gives credentials that live for `lives` seconds, the first `good` times.
    #[derive(Debug)]
    struct Source {
        asked: AtomicU32,
        good: u32,
        lives: Option<u64>,
    }

    #[derive(Clone, Debug)]
    struct Shared(Arc<Source>);

    impl ProvideCredentials for Shared {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let asked = self.0.asked.fetch_add(1, Ordering::Relaxed) + 1;
            let expires = self.0.lives.map(|seconds| SystemTime::now() + Duration::from_secs(seconds));
            future::ProvideCredentials::ready(match asked <= self.0.good {
                true => Ok(Credentials::new(format!("key{asked}"), "secret", None, expires, "test")),
                false => Err(CredentialsError::not_loaded("gone")),
            })
        }
    }

    async fn keys(good: u32, lives: Option<u64>, times: usize) -> (Vec<Option<String>>, u32) {
        let source = Shared(Arc::new(Source { asked: AtomicU32::new(0), good, lives }));
        let chain = AwsChain::over(SharedCredentialsProvider::new(source.clone()));
        let mut keys = Vec::new();
        for _ in 0..times {
            keys.push(chain.get_credential().await.ok().map(|credential| credential.key_id.clone()));
        }
        (keys, source.0.asked.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn credentials_are_kept_until_shortly_before_they_expire() {
        let one = Some("key1".to_owned());
        assert_eq!(keys(9, None, 3).await, (vec![one.clone(); 3], 1));
        assert_eq!(keys(9, Some(3600), 3).await, (vec![one.clone(); 3], 1));
        // 100 s are fewer than the margin: asked again each time.
        let (renewed, asked) = keys(9, Some(100), 3).await;
        assert_eq!((renewed[2].as_deref(), asked), (Some("key3"), 3));
        // What cannot be renewed is used as long as it is good.
        assert_eq!(keys(1, Some(100), 3).await, (vec![one; 3], 3));
        assert_eq!(keys(0, None, 2).await, (vec![None; 2], 2));
    }

    fn settings(environment: &[(&str, &str)]) -> AwsSettings {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        AwsSettings::new(Arc::new(pairs.collect()))
    }

    #[tokio::test]
    async fn a_profile_gives_region_and_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let (config, credentials) = (dir.path().join("config"), dir.path().join("credentials"));
        std::fs::write(
            &config,
            "[profile archive]\nregion = eu-north-1\n[profile made]\ncredential_process = printf \
             '{\"Version\":1,\"AccessKeyId\":\"made\",\"SecretAccessKey\":\"s\"}'\n",
        )
        .unwrap();
        std::fs::write(&credentials, "[archive]\naws_access_key_id = file\naws_secret_access_key = s\n")
            .unwrap();
        let of = |profile: &str| {
            settings(&[
                ("AWS_CONFIG_FILE", config.to_str().unwrap()),
                ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()),
                ("AWS_PROFILE", profile),
            ])
        };
        assert_eq!(of("archive").region(), "eu-north-1");
        assert_eq!(of("made").region(), DEFAULT_REGION);
        for (profile, key) in [("archive", "file"), ("made", "made")] {
            let chain = AwsChain::new(of(profile));
            assert_eq!(chain.get_credential().await.unwrap().key_id, key);
        }
    }

    #[test]
    fn the_environment_says_where_and_how() {
        let plain = settings(&[]);
        assert!(!plain.over_http() && plain.path_style() && plain.keys().is_none() && !plain.unsigned());
        let minio = settings(&[
            ("AWS_ENDPOINT_URL", "HTTP://minio:9000"),
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_REGION", "garage"),
        ]);
        assert!(minio.over_http() && minio.keys() == Some(("k", "s", None)) && minio.region() == "garage");
        assert!(!settings(&[("AWS_ENDPOINT_URL", "https://h")]).over_http());
        assert!(!settings(&[("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")]).path_style());
        assert!(settings(&[("AWS_SKIP_SIGNATURE", "true")]).unsigned());
    }
}
