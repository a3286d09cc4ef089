//! Indexes: a standing set of questions over a folder of object storage. A listing finds the objects, the catalogue
//! remembers the version (ETag) of each that was enqueued, and only what is new or changed becomes jobs.
//!
//! A listing is idempotent. Objects come in pages; a page's jobs are submitted first, under ids that are made from
//! question, key and ETag, then catalogue and position are written in one transaction. Whoever dies in between lists
//! the page again and finds its jobs there already. So nothing is lost and nothing is asked twice, however often a
//! listing is repeated, resumed or delivered by the queue.
//!
//! Memory does not grow with the bucket: a page at a time per range, a few ranges at once.

mod catalogue;
mod decide;
mod dry_run;
mod figures;
mod inventory;
mod listing;
mod pages;
mod ranges;
mod rows;
mod schedule;
mod spec;

pub use dry_run::{DryRun, dry_run};
pub use figures::IndexFigures;
pub use listing::{Listed, ListingOptions, listing};
pub use rows::{Index, IndexId};
pub use schedule::check_schedule;
pub use spec::{IndexQuestion, IndexSpec, RestoreTier, read_questions};
