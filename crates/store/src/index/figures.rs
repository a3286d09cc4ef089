//! What a listing has come to.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Counts of a listing, or of a range of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexFigures {
    /// Objects that were seen.
    pub listed: u64,
    /// Those whose names belong to the index.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were not known before.
    pub new: u64,
    /// Objects of which another version was known.
    pub changed: u64,
    /// Objects in archive classes that are being restored.
    pub restoring: u64,
    /// Objects that are left out: archived, or of a name that cannot be opened.
    pub skipped: u64,
    /// Jobs that were enqueued.
    pub jobs: u64,
    /// Jobs whose ids the batch has with other content: the index was made again with other questions.
    pub conflicts: u64,
}

impl AddAssign for IndexFigures {
    fn add_assign(&mut self, other: Self) {
        self.listed += other.listed;
        self.objects += other.objects;
        self.bytes += other.bytes;
        self.new += other.new;
        self.changed += other.changed;
        self.restoring += other.restoring;
        self.skipped += other.skipped;
        self.jobs += other.jobs;
        self.conflicts += other.conflicts;
    }
}
