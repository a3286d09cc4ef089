//! What lies in Redis: tagged, versioned, and ids only. A reader that does not know the version or the tag still
//! learns that something is there to look at.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use spectemp_types::JobId;

/// The version that is written.
const VERSION: u32 = 1;

/// The envelope of every message.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    #[serde(flatten)]
    body: T,
}

/// Somebody should look into the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Bell {
    /// A job waits, or several; the id is a hint for people who look into Redis.
    Ring {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobId>,
    },
}

/// Housekeeping. Every task may run twice, at the same time or never: each looks into the ledger for what is due.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Task {
    /// Take back leases past their time, ring again for waiting jobs that nobody took.
    Sweep,
    /// List the prefix of an index and submit what is new.
    Listing {
        /// The index's name or id.
        index: String,
    },
    /// Look for indexes whose schedule is due.
    Listings,
    /// Export finished batches, call webhooks.
    Tell,
    /// Drop what is past its time.
    Retention,
}

impl Task {
    /// What tells it from all others, in keys.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Listing { index } => format!("listing:{index}"),
            other => other.name().to_owned(),
        }
    }

    /// The word of it in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sweep => "sweep",
            Self::Listing { .. } => "listing",
            Self::Listings => "listings",
            Self::Tell => "tell",
            Self::Retention => "retention",
        }
    }
}

/// What can lie in a list.
pub(crate) trait Message: Serialize + DeserializeOwned + Send + Sync + Unpin + 'static {
    fn to_bytes(&self) -> Vec<u8>
    where
        Self: Clone,
    {
        // A struct of strings and ids cannot fail to be written.
        serde_json::to_vec(&Envelope { v: VERSION, body: self }).unwrap_or_default()
    }

    /// What to take instead of a message that this program does not know.
    fn unknown() -> Option<Self>;

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match serde_json::from_slice::<Envelope<Self>>(bytes) {
            Ok(envelope) if envelope.v == VERSION => Some(envelope.body),
            _ => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
                tracing::warn!(message = text, "unknown message in the queue");
                Self::unknown()
            }
        }
    }
}

impl Message for Bell {
    fn unknown() -> Option<Self> {
        Some(Self::Ring { job: None })
    }
}

impl Message for Task {
    fn unknown() -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_tagged_and_versioned() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let job: JobId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(
            text(Bell::Ring { job: Some(job) }.to_bytes()),
            r#"{"v":1,"type":"ring","job":"01890a5d-ac96-774b-bcce-b302099a8057"}"#
        );
        assert_eq!(text(Bell::Ring { job: None }.to_bytes()), r#"{"v":1,"type":"ring"}"#);
        let listing = Task::Listing { index: "cctv".to_owned() };
        assert_eq!(text(listing.to_bytes()), r#"{"v":1,"type":"listing","index":"cctv"}"#);
        for task in [Task::Sweep, listing, Task::Listings, Task::Tell, Task::Retention] {
            assert_eq!(Task::from_bytes(&task.to_bytes()), Some(task));
        }
    }

    #[test]
    fn an_unknown_message_still_wakes_and_never_runs() {
        for text in [r#"{"v":2,"type":"ring","jobs":[1]}"#, r#"{"v":1,"type":"gong"}"#, "", "\u{0}"] {
            assert_eq!(Bell::from_bytes(text.as_bytes()), Some(Bell::Ring { job: None }), "{text}");
            assert_eq!(Task::from_bytes(text.as_bytes()), None, "{text}");
        }
    }
}
