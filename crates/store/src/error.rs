//! What can go wrong in the store, for callers to match on. Database and object store errors stay private:
//! they arrive here as text, mapped in one place.

use std::path::{Path, PathBuf};

use spectemp_types::JobId;

use crate::LocationError;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the home.
    #[error("home {} is in use by {holder}: wait for it, or give another --home", dir.display())]
    Held {
        /// The home folder.
        dir: PathBuf,
        /// Process id and command line of the holder, as it wrote them.
        holder: String,
    },
    /// The home does not exist, and the command only reads.
    #[error("home {} holds no ledger yet: ask or run something first, or give another --home", dir.display())]
    NoHome {
        /// The home folder.
        dir: PathBuf,
    },
    /// The ledger was written by a later version of the program.
    #[error("ledger {} has schema version {found}, this program knows up to {known}: use a newer spectemp", path.display())]
    Newer {
        /// The ledger file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The ledger on a server was not upgraded yet.
    #[error("{database} has schema version {found}, this program needs {known}: run `spectemp migrate`")]
    NotMigrated {
        /// Which database.
        database: String,
        /// Its version; 0 without any.
        found: i64,
        /// The version needed.
        known: i64,
    },
    /// The database is away: it restarts, is full of connections, or cannot be reached. Try again.
    #[error("ledger failed to {what}: the database cannot be reached: {cause}")]
    Unavailable {
        /// The verb phrase.
        what: &'static str,
        /// What is known of it.
        cause: String,
    },
    /// The ledger is of an older version and another process holds the home, so it cannot be upgraded now.
    #[error("ledger {} must be upgraded first and its home is in use by {holder}: try again later", path.display())]
    OlderAndHeld {
        /// The ledger file.
        path: PathBuf,
        /// Who holds the home.
        holder: String,
    },
    /// The disk (or the ledger's own size limit) is full. What was committed before stays.
    #[error("no space left while writing {what}: free some (`spectemp gc` helps) and run again")]
    Full {
        /// What was being written.
        what: String,
    },
    /// A file or folder of the home, or of the results.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The verb.
        what: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The database failed.
    #[error("ledger failed to {what}: {cause}")]
    Database {
        /// The verb phrase.
        what: &'static str,
        /// What the database says.
        cause: String,
    },
    /// The lease is no longer valid: the job was claimed again, ended or was cancelled. Nothing was changed.
    #[error("lease of job {job} (epoch {epoch}) is stale: the job was taken over, ended or cancelled")]
    Stale {
        /// The job.
        job: JobId,
        /// The lease's epoch.
        epoch: u32,
    },
    /// The round is not the next one. Nothing was changed.
    #[error("round {round} of job {job} does not follow the {committed} rounds that are committed")]
    Gap {
        /// The job.
        job: JobId,
        /// The number of the refused round.
        round: u32,
        /// How many are committed.
        committed: u32,
    },
    /// No such job.
    #[error("no job {0:?}: give its UUID, or its id as in the job file")]
    NoJob(String),
    /// No such API key.
    #[error("no key {0:?}: `spectemp key list` names them")]
    NoKey(String),
    /// No such index.
    #[error("no index {0:?}: `spectemp index list` names them")]
    NoIndex(String),
    /// Something that the caller gave cannot work, and why.
    #[error("{0}")]
    Invalid(String),
    /// Several batches hold a job of that id.
    #[error("id {id:?} is ambiguous, give one of the UUIDs: {}", candidates.iter().map(|(job, batch)| format!("{job} (batch {batch})")).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was asked for.
        id: String,
        /// Jobs of that id with their batches.
        candidates: Vec<(JobId, String)>,
    },
    /// Something stored cannot be read back.
    #[error("{what} cannot be read back: {cause}")]
    Corrupt {
        /// Which row or object.
        what: String,
        /// Why.
        cause: String,
    },
    /// A location that cannot be opened.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// An object could not be written or read.
    #[error("object {key} failed: {cause}")]
    Object {
        /// Its key or URI, without query.
        key: String,
        /// What the object store says.
        cause: String,
    },
    /// SQL on a server without the login for it.
    #[error(
        "sql on Postgres needs the login of spectemp_reader: give --reader-url (SPECTEMP_READER_URL), a postgres:// URL"
    )]
    NoReader,
    /// A query that reaches for more than the views.
    #[error("sql may not {what}: it can select from the views {}", crate::VIEWS.join(", "))]
    SqlDenied {
        /// What it tried.
        what: String,
    },
    /// A query that ran too long.
    #[error("sql took longer than {seconds} s and was stopped")]
    SqlTimeout {
        /// The limit.
        seconds: f64,
    },
    /// A query that the database does not understand.
    #[error("sql: {0}")]
    Sql(String),
}

impl StoreError {
    /// True where trying again cannot help as long as nobody changes anything.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::Full { what: path.display().to_string() }
            }
            _ => Self::Io { what, path, source },
        }
    }

    /// True where the database or a store is away for a moment: the same call may succeed later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub(crate) fn database(what: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |error| {
            let code = error.as_database_error().and_then(|error| error.code());
            match code.as_deref() {
                // SQLITE_FULL, and Postgres's disk_full.
                Some("13" | "53100") => Self::Full { what: "the ledger".to_owned() },
                Some(code) if is_away(code) => Self::Unavailable { what, cause: error.to_string() },
                None if is_broken(&error) => Self::Unavailable { what, cause: error.to_string() },
                _ => Self::Database { what, cause: error.to_string() },
            }
        }
    }

    pub(crate) fn object(key: impl std::fmt::Display) -> impl FnOnce(object_store::Error) -> Self {
        move |error| match no_space(&error) {
            true => Self::Full { what: format!("object {key}") },
            false => Self::Object { key: key.to_string(), cause: crate::location::redacted_cause(&error) },
        }
    }

    pub(crate) fn corrupt(what: impl std::fmt::Display) -> impl FnOnce(serde_json::Error) -> Self {
        move |error| Self::Corrupt { what: what.to_string(), cause: error.to_string() }
    }
}

/// Postgres's classes of a lost connection, of a server that starts or stops, of too many connections.
fn is_away(code: &str) -> bool {
    code.len() == 5 && (code.starts_with("08") || code.starts_with("57P") || code == "53300")
}

fn is_broken(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Tls(_)
    )
}

/// True where an I/O error of a full disk lies somewhere below.
pub(crate) fn no_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = error.source();
    }
    false
}
