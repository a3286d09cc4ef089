//! S3 by its own protocol, for what the common store does not know: storage classes and restores in a listing, sub-prefix
//! by sub-prefix from any key on.

use std::{sync::Arc, time::SystemTime};

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use aws_sdk_s3::{
    Client,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    operation::restore_object::RestoreObjectError,
    types::{GlacierJobParameters, Object, OptionalObjectAttributes, RestoreRequest, Tier},
};
use spectemp_types::VideoUri;

use super::{
    LocationError, Locations,
    aws::AwsChain,
    clients::Clients,
    place::{Cloud, Place},
    redact_urls,
};

/// A bucket of S3, or of a server that speaks its protocol.
#[derive(Clone, Debug)]
pub(crate) struct S3Bucket {
    client: Client,
    bucket: String,
}

/// What a listing says of one object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct S3Object {
    pub(crate) key: String,
    pub(crate) etag: Option<String>,
    pub(crate) bytes: u64,
    pub(crate) modified_ms: i64,
    pub(crate) storage_class: Option<String>,
    /// Where the listing tells: `Some(true)` is readable now, `Some(false)` is on its way.
    pub(crate) restored: Option<bool>,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(crate) struct S3Page {
    pub(crate) objects: Vec<S3Object>,
    /// Sub-prefixes, where the listing stops at slashes.
    pub(crate) folders: Vec<String>,
    pub(crate) more: bool,
}

/// What became of a request to restore an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restore {
    Begun,
    /// It lies in a class that needs none.
    NotNeeded,
}

impl Locations {
    /// The bucket of `prefix` and the decoded key prefix in it; `None` for what is not S3.
    pub(crate) fn s3_folder(&self, prefix: &VideoUri) -> Result<Option<(S3Bucket, String)>, LocationError> {
        self.check_folder(prefix)?;
        Ok(match Place::of(prefix)? {
            Place::Bucket { cloud: Cloud::S3, authority, key } => Some((self.clients.s3(&authority), key)),
            _ => None,
        })
    }
}

impl Clients {
    fn s3(&self, bucket: &str) -> S3Bucket {
        let options = self.options();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(options.connect_timeout)
            .operation_attempt_timeout(options.request_timeout)
            .build();
        let tries = u32::try_from(options.retries).unwrap_or(u32::MAX).saturating_add(1);
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.aws.region()))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(tries));
        if let Some(endpoint) = self.aws.endpoint() {
            config = config.endpoint_url(endpoint).force_path_style(self.aws.path_style());
        }
        config = match self.aws.keys() {
            _ if self.aws.unsigned() => config.allow_no_auth(),
            Some((key, secret, token)) => config.credentials_provider(Credentials::new(
                key,
                secret,
                token.map(str::to_owned),
                None,
                "environment",
            )),
            None => config.credentials_provider(ChainForSdk(Arc::clone(&self.chain))),
        };
        S3Bucket { client: Client::from_conf(config.build()), bucket: bucket.to_owned() }
    }
}

/// The same chain and the same kept credentials as the common store's.
#[derive(Debug)]
struct ChainForSdk(Arc<AwsChain>);

impl ProvideCredentials for ChainForSdk {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let (credential, expires) = self
                .0
                .current()
                .await
                .map_err(|error| CredentialsError::provider_error(error.to_string()))?;
            Ok(Credentials::new(
                &credential.key_id,
                &credential.secret_key,
                credential.token.clone(),
                expires,
                "chain",
            ))
        })
    }
}

impl S3Bucket {
    /// The next objects under `prefix` after the key `after`, in the order of their keys' bytes; with `by_folder` it
    /// stops at slashes.
    pub(crate) async fn page(&self, prefix: &str, after: &str, by_folder: bool) -> Result<S3Page, String> {
        let mut request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .optional_object_attributes(OptionalObjectAttributes::RestoreStatus);
        if !after.is_empty() {
            request = request.start_after(after);
        }
        if by_folder {
            request = request.delimiter("/");
        }
        let listed = request.send().await.map_err(told)?;
        let folders = listed.common_prefixes().iter().filter_map(|folder| folder.prefix().map(str::to_owned));
        Ok(S3Page {
            objects: listed.contents().iter().filter_map(read_object).collect(),
            folders: folders.collect(),
            more: listed.is_truncated().unwrap_or(false),
        })
    }

    /// Asks for a readable copy of an archived object for `days` days. Asking again while it is on its way is harmless.
    pub(crate) async fn restore(&self, key: &str, days: u32, tier: &str) -> Result<Restore, String> {
        let tier =
            GlacierJobParameters::builder().tier(Tier::from(tier)).build().map_err(|e| e.to_string())?;
        let request = RestoreRequest::builder()
            .days(i32::try_from(days).unwrap_or(i32::MAX))
            .glacier_job_parameters(tier)
            .build();
        let asked =
            self.client.restore_object().bucket(&self.bucket).key(key).restore_request(request).send().await;
        match asked {
            Ok(_) => Ok(Restore::Begun),
            Err(error) if error.code() == Some("RestoreAlreadyInProgress") => Ok(Restore::Begun),
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), RestoreObjectError::ObjectAlreadyInActiveTierError(_)) =>
            {
                Ok(Restore::NotNeeded)
            }
            Err(error) => Err(told(error)),
        }
    }

    /// True where the archived object `key` has a readable copy now.
    pub(crate) async fn is_restored(&self, key: &str) -> Result<bool, String> {
        let head = self.client.head_object().bucket(&self.bucket).key(key).send().await.map_err(told)?;
        Ok(head.restore().is_some_and(|text| text.contains("ongoing-request=\"false\"")))
    }
}

fn read_object(object: &Object) -> Option<S3Object> {
    let restore = object.restore_status();
    let in_progress = restore.and_then(|status| status.is_restore_in_progress());
    let good_until = restore.and_then(|status| status.restore_expiry_date());
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    Some(S3Object {
        key: object.key()?.to_owned(),
        etag: object.e_tag().map(str::to_owned),
        bytes: u64::try_from(object.size().unwrap_or(0)).unwrap_or(0),
        modified_ms: object.last_modified().and_then(|time| time.to_millis().ok()).unwrap_or(0),
        storage_class: object.storage_class().map(|class| class.as_str().to_owned()),
        restored: match (in_progress, good_until) {
            (Some(true), _) => Some(false),
            (_, Some(until)) => (until.secs() > now).then_some(true),
            _ => None,
        },
    })
}

/// The server's words with all causes, without signatures.
fn told<E, R>(error: SdkError<E, R>) -> String
where
    E: std::error::Error + 'static,
    R: std::fmt::Debug,
{
    redact_urls(&DisplayErrorContext(&error).to_string())
}
