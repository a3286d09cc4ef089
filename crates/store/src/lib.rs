//! Everything durable: the ledger (SQLite or Postgres), objects, locations, the home folder.

mod authorizer;
mod db;
mod disk_cache;
mod error;
mod export;
mod forget;
mod gc;
mod home;
mod index;
mod keys;
mod ledger;
pub mod location;
mod objects;
mod reader_role;
mod sql;
mod sql_postgres;
mod store;

pub use disk_cache::DiskCache;
pub use error::StoreError;
pub use export::{
    BadLine, BatchExport, ExportJob, ExportReport, Manifest, ManifestPart, ManifestTable, PartLimits, export,
    export_batch,
};
pub use forget::Forgotten;
pub use gc::{Freed, GcLimits, GcReport};
pub use home::{Home, HomeReader};
pub use index::{
    DryRun, Index, IndexFigures, IndexId, IndexQuestion, IndexSpec, Listed, ListingOptions, RestoreTier,
    check_schedule, dry_run, listing, read_questions,
};
pub use keys::{ApiKey, NewKey, Role, UnknownRole, check_tenant};
pub use ledger::{
    AnswerRow, AnsweredJob, Batch, BatchManifest, Claim, Claimed, Counts, Cursor, DEFAULT_TENANT, Explained,
    FailedJob, Finished, Job, JobConflict, JobFilter, KeptRequest, Lease, Ledger, LedgerKind, LedgerOptions,
    LedgerReader, MigrateOptions, Migrated, NewJob, Page, Reclaimed, Sealing, Submission, VideoRow, Webhook,
    migrate,
};
pub use location::{AllowList, LocationError, LocationOptions, Locations, ObjectLocation};
pub use objects::{ObjectKey, Objects};
pub use sql::{SqlLimits, SqlTable, VIEWS};
pub use store::Store;

/// A folder in memory where there is one: syncing to a disk is not what these tests are about.
#[cfg(test)]
fn test_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
