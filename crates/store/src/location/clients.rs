//! The clients of the three clouds, made alike: settings from the environment, one patience, one way out.

use std::{collections::HashMap, str::FromStr, sync::Arc};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder,
};

use super::{
    LocationOptions,
    aws::{AwsChain, AwsSettings},
    place::Cloud,
};

/// What all clients are made from.
#[derive(Debug)]
pub(super) struct Clients {
    options: LocationOptions,
    environment: Arc<HashMap<String, String>>,
    pub(super) aws: AwsSettings,
    pub(super) chain: Arc<AwsChain>,
}

impl Clients {
    pub(super) fn new(options: LocationOptions, environment: HashMap<String, String>) -> Self {
        let environment = Arc::new(environment);
        let aws = AwsSettings::new(Arc::clone(&environment));
        Self { options, environment, chain: Arc::new(AwsChain::new(aws.clone())), aws }
    }

    pub(super) fn options(&self) -> &LocationOptions {
        &self.options
    }

    /// The client of a bucket; `authority` is its name (for Azure `container@account` too).
    pub(super) fn bucket(
        &self,
        cloud: Cloud,
        authority: &str,
    ) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
        // The three builders have these methods alike, but no trait.
        macro_rules! built {
            ($builder:expr) => {
                Arc::new(
                    $builder
                        .with_client_options(
                            client_options(&self.options)
                                .with_allow_http(cloud == Cloud::S3 && self.aws.over_http()),
                        )
                        .with_retry(retry(&self.options))
                        .build()?,
                )
            };
        }
        Ok(match cloud {
            Cloud::S3 => {
                let settings = self.settings(&["AWS_"]);
                let mut builder =
                    configured(AmazonS3Builder::new(), settings, |b, key, value| b.with_config(key, value))
                        .with_bucket_name(authority)
                        .with_region(self.aws.region());
                if self.aws.keys().is_none() && !self.aws.unsigned() {
                    builder = builder.with_credentials(Arc::clone(&self.chain) as _);
                }
                built!(builder)
            }
            Cloud::Google => {
                let settings = self.settings(&["GOOGLE_", "SERVICE_ACCOUNT"]);
                let builder = GoogleCloudStorageBuilder::new();
                let builder = configured(builder, settings, |b, key, value| b.with_config(key, value));
                built!(builder.with_bucket_name(authority))
            }
            Cloud::Azure => {
                let scheme = if authority.contains('@') { "abfss" } else { "az" };
                let settings = self.settings(&["AZURE_"]);
                let builder = MicrosoftAzureBuilder::new();
                let builder = configured(builder, settings, |b, key, value| b.with_config(key, value));
                built!(builder.with_url(format!("{scheme}://{authority}/")))
            }
        })
    }

    /// The variables of one cloud, names in lower case as its builder knows them.
    fn settings(&self, prefixes: &[&str]) -> Vec<(String, String)> {
        let of_cloud = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let found = self.environment.iter().filter(|(name, _)| of_cloud(name));
        found.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
    }
}

/// `builder` with every setting that it knows; the environment holds others too.
fn configured<B, K: FromStr>(
    builder: B,
    settings: Vec<(String, String)>,
    set: impl Fn(B, K, String) -> B,
) -> B {
    settings.into_iter().fold(builder, |builder, (key, value)| match key.parse() {
        Ok(key) => set(builder, key, value),
        Err(_) => builder,
    })
}

pub(super) fn client_options(options: &LocationOptions) -> ClientOptions {
    ClientOptions::new().with_timeout(options.request_timeout).with_connect_timeout(options.connect_timeout)
}

pub(super) fn retry(options: &LocationOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: options.retries,
        retry_timeout: options.retry_timeout,
    }
}
