//! The parts of a cluster that `serve` and `worker` are both told of: the ledger, the objects, the doorbell.

use anyhow::Context as _;
use spectemp_queue::{Doorbell, RedisOptions};
use spectemp_store::{Locations, Objects, location};
use spectemp_types::VideoUri;

use crate::output::Usage;

/// The ledger's URL and the place of the traces: neither can be done without.
pub(crate) fn ledger_and_objects<'a>(
    database_url: Option<&'a str>,
    objects: Option<&str>,
) -> anyhow::Result<(&'a str, Objects)> {
    let url = database_url.ok_or_else(|| {
        Usage("no ledger: give --database-url postgres://… or set SPECTEMP_DATABASE_URL (on one machine use `spectemp up`)".to_owned())
    })?;
    let objects = objects.ok_or_else(|| {
        Usage(
            "no place of the traces: give --objects DIR or s3://bucket/prefix, or set SPECTEMP_OBJECTS"
                .to_owned(),
        )
    })?;
    Ok((url, objects_at(objects)?))
}

/// The objects under `prefix`, which is the operator's own choice.
fn objects_at(prefix: &str) -> anyhow::Result<Objects> {
    let usage = |cause: String| Usage(format!("--objects {prefix:?}: {cause}"));
    let uri = VideoUri::parse(prefix).map_err(|cause| usage(cause.to_string()))?;
    let uri = location::normalize(&uri).map_err(|cause| usage(cause.to_string()))?;
    Objects::at(&uri, &Locations::default()).with_context(|| format!("traces cannot be kept in {uri}"))
}

/// The doorbell in Redis; without one a bell that only this process hears, and `means` is told.
pub(crate) fn doorbell(redis_url: Option<&str>, means: &str) -> anyhow::Result<Doorbell> {
    match redis_url {
        Some(url) => {
            Ok(Doorbell::redis(url, RedisOptions::default()).map_err(|cause| Usage(cause.to_string()))?)
        }
        None => {
            eprintln!("no --redis-url: {means}");
            Ok(Doorbell::memory())
        }
    }
}
