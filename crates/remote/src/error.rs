//! Why a server could not be used. Every text names the server (its address holds no secret) and what to do.

use std::path::PathBuf;

use spectemp_engine::VlmError;

/// Why a server could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The address is wrong.
    #[error("model server {address:?}: {cause}")]
    Address {
        /// It, without a password.
        address: String,
        /// What is wrong, and what to write.
        cause: String,
    },
    /// The key cannot be sent.
    #[error(
        "the key of a model server must be printable ASCII without spaces: check SPECTEMP_TARGET_API_KEY and SPECTEMP_DRAFT_API_KEY"
    )]
    Key,
    /// A prompt template of the settings cannot be read.
    #[error("prompts of a model server: {}: {cause}", path.display())]
    Prompts {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The server will not have the request however often it is sent.
    #[error("{server} (model {model}): {cause}")]
    Refused {
        /// Base URL.
        server: String,
        /// Model.
        model: String,
        /// What it said, and what to do.
        cause: String,
        /// The status of its reply, where that is the reason.
        status: Option<u16>,
    },
    /// The server cannot be reached, is overloaded or broken: a later try may work.
    #[error("{server} (model {model}): {cause}; tries: {tries}")]
    Unavailable {
        /// Base URL.
        server: String,
        /// Model.
        model: String,
        /// What the last try came to.
        cause: String,
        /// Requests sent.
        tries: u32,
    },
    /// The request's token was cancelled.
    #[error("the request was cancelled")]
    Cancelled,
}

impl From<RemoteError> for VlmError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Cancelled => Self::Cancelled,
            RemoteError::Unavailable { .. } => Self::Backend(error.to_string()),
            RemoteError::Address { .. }
            | RemoteError::Key
            | RemoteError::Prompts { .. }
            | RemoteError::Refused { .. } => Self::Refused(error.to_string()),
        }
    }
}
