//! Why a session stopped, and whether another try may help.

use crate::{FrameError, VlmError};

/// What a caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Trying again gives the same error.
    Permanent,
    /// Another try may work; [`Session::next_round`](crate::Session::next_round) can be called again.
    Transient,
    /// The session's token was cancelled.
    Cancelled,
}

/// Why a session could not go on. No round is lost: those already returned stay valid.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The frames could not be had.
    #[error(transparent)]
    Frames(#[from] FrameError),
    /// A model could not generate.
    #[error("{role} model: {source}")]
    Model {
        /// `target` or `draft`.
        role: &'static str,
        /// What the backend says.
        source: VlmError,
    },
    /// The strategy needs a draft and none was given.
    #[error(
        "strategy {strategy} needs a draft model: pass --draft, or choose the strategy uniform or target-uniform"
    )]
    NoDraft {
        /// Its name.
        strategy: &'static str,
    },
    /// A prompt template is wrong.
    #[error("prompt template {name} is wrong: {cause}")]
    Template {
        /// `target` or `draft`.
        name: &'static str,
        /// What is wrong, with the line where it is known.
        cause: String,
    },
    /// The video has no length.
    #[error("video lasts {duration_s} s: nothing can be asked about it")]
    NoVideo {
        /// What the source says.
        duration_s: f64,
    },
    /// The earlier rounds do not fit the job.
    #[error("earlier rounds cannot be resumed: {0}")]
    Resume(String),
    /// [`Session::finish`](crate::Session::finish) before there is an answer.
    #[error("session has no answer after {rounds} rounds: call next_round until it returns none")]
    Unfinished {
        /// Rounds so far.
        rounds: usize,
    },
    /// The token was cancelled between two stages.
    #[error("session was cancelled")]
    Cancelled,
}

impl SessionError {
    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Cancelled
            | Self::Frames(FrameError::Cancelled)
            | Self::Model { source: VlmError::Cancelled, .. } => ErrorClass::Cancelled,
            Self::Frames(FrameError::Transient(_)) | Self::Model { source: VlmError::Backend(_), .. } => {
                ErrorClass::Transient
            }
            _ => ErrorClass::Permanent,
        }
    }
}
