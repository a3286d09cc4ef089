//! Objects over a real S3 server: credentials, patience, traces under a prefix.

use std::time::Duration;

use object_store::ObjectStoreExt;
use spectemp_store::{AllowList, LocationError, LocationOptions, Locations, Objects};
use spectemp_types::JobId;

use crate::{
    common::{round, spec, trace, uri},
    s3_server::{KEY, S3Server, SECRET},
};

#[tokio::test]
async fn traces_lie_under_any_prefix() {
    let server = S3Server::start().await;
    let folder = crate::common::dir();
    let local = format!("{}/made/traces", folder.path().display());
    for prefix in ["s3://bucket/traces of/a b/", "s3://bucket", &local] {
        // The operator's prefix need not be among those that users may open.
        let locations = server.locations().allow(AllowList::default());
        let objects = Objects::at(&uri(prefix), &locations).unwrap();
        let trace = trace(JobId::new(), spec("a", "/v/a.mp4"), vec![round(0)]);
        objects.put_trace(3, &trace).await.unwrap();
        assert_eq!(objects.trace(trace.job_id, 3).await.unwrap(), Some(trace.clone()), "{prefix}");
        assert_eq!(objects.trace(trace.job_id, 4).await.unwrap(), None);
        let direct = format!("{}/traces/{}/3.json", prefix.trim_end_matches('/'), trace.job_id);
        assert!(matches!(locations.resolve(&uri(&direct)), Err(LocationError::Forbidden { .. })));
        let place = server.locations().resolve(&uri(&direct)).unwrap();
        place.store.head(&place.path).await.unwrap();
    }
}

#[tokio::test]
async fn credentials_come_from_the_environment_or_the_chain() {
    let server = S3Server::start().await;
    server.put("a.mp4", b"1234");
    let dir = crate::common::dir();
    let config = dir.path().join("config");
    let made = format!(
        "[profile archive]\nregion = eu-west-1\ncredential_process = printf \
         '{{\"Version\":1,\"AccessKeyId\":\"{KEY}\",\"SecretAccessKey\":\"{SECRET}\",\"Expiration\":\"2099-01-01T00:00:00Z\"}}'\n"
    );
    std::fs::write(&config, made).unwrap();
    let config = config.to_str().unwrap();
    let nowhere = dir.path().join("none");
    let profile = [
        ("AWS_CONFIG_FILE", config),
        ("AWS_SHARED_CREDENTIALS_FILE", nowhere.to_str().unwrap()),
        ("AWS_PROFILE", "archive"),
    ];
    let keys = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let wrong = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "other")];
    let read = async |settings: &[(&str, &str)]| {
        let options = LocationOptions { retries: 0, ..LocationOptions::default() };
        let locations = Locations::with_environment(options, server.environment(settings));
        let place = locations.resolve(&uri("s3://bucket/a.mp4")).unwrap();
        place.store.get_range(&place.path, 1..3).await.map(|bytes| bytes.to_vec())
    };
    assert_eq!(read(&keys).await.unwrap(), b"23");
    assert_eq!(read(&profile).await.unwrap(), b"23");
    let refused = read(&wrong).await.unwrap_err();
    assert!(matches!(refused, object_store::Error::PermissionDenied { .. }), "{refused:?}");
}

#[tokio::test]
async fn errors_and_stalls_of_the_server_pass() {
    let server = S3Server::start().await;
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    server.put("a.mp4", &content);
    // A twentieth of the requests fails, a fiftieth is not answered in time.
    server.misbehave(20, 50);
    let options = LocationOptions {
        request_timeout: Duration::from_millis(500),
        retries: 8,
        ..LocationOptions::default()
    };
    let locations = server.locations_with(options);
    let place = locations.resolve(&uri("s3://bucket/a.mp4")).unwrap();
    for start in (0..99_000).step_by(500) {
        let bytes = place.store.get_range(&place.path, start..start + 1000).await.unwrap();
        assert_eq!(bytes, content[start as usize..][..1000], "{start}");
    }
    assert!(server.requests() > 198 + 9, "{} requests: some were repeated", server.requests());
}

#[tokio::test]
async fn a_server_opens_only_what_is_on_its_list() {
    let server = S3Server::start().await;
    server.put("in/a.mp4", b"1234");
    server.put("secret.mp4", b"5678");
    let locations = server.locations().allow(AllowList::parse(["s3://bucket/in/"]).unwrap());
    let place = locations.resolve(&uri("s3://bucket/in/a.mp4")).unwrap();
    assert_eq!(place.store.get_range(&place.path, 0..4).await.unwrap().as_ref(), b"1234");
    let before = server.requests();
    for other in [
        "s3://bucket/secret.mp4",
        "s3://bucket/in/../secret.mp4",
        "s3://bucket/in/%2e%2e/secret.mp4",
        "s3://other/in/a.mp4",
        &format!("{}/bucket/in/a.mp4", server.endpoint),
        &format!("{}/bucket/secret.mp4", server.endpoint),
        "http://169.254.169.254/latest/meta-data/",
        "/etc/passwd",
    ] {
        assert!(matches!(locations.resolve(&uri(other)), Err(LocationError::Forbidden { .. })), "{other}");
    }
    assert_eq!(server.requests(), before, "nothing was asked");
}
