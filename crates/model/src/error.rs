//! What can go wrong with a model, each naming the file, field or tensor it is about.

use std::path::PathBuf;

/// Why a model cannot be found, loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file that a checkpoint must have is not there.
    #[error("{model} has no {file}")]
    Missing {
        /// The checkpoint's name.
        model: String,
        /// What is missing.
        file: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file does not hold what it must.
    #[error("{file} is broken: {reason}")]
    Broken {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that this program does not do.
    #[error("{file}: {what} is not supported")]
    Unsupported {
        /// The file that asks for it.
        file: String,
        /// Field and value.
        what: String,
    },
    /// A weight that the config asks for is not there or has another shape.
    #[error("tensor {name}: {reason}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The conversation cannot become a prompt.
    #[error("prompt: {0}")]
    Prompt(String),
    /// An image cannot be sized.
    #[error(transparent)]
    Image(#[from] spectemp_engine::PixelError),
    /// A tensor operation failed.
    #[error("computing: {0}")]
    Compute(#[from] candle_core::Error),
    /// The device or data type is not there.
    #[error("{0}")]
    Device(String),
    /// A model source cannot be understood or fetched.
    #[error("model {model}: {reason}")]
    Source {
        /// As it was named.
        model: String,
        /// The cause.
        reason: String,
    },
    /// The output cannot be held to its form.
    #[error("output cannot be constrained: {0}: set constrain=off to let the model write freely")]
    Constraint(String),
    /// Generation was cancelled.
    #[error("generation was cancelled")]
    Cancelled,
    /// The context does not fit.
    #[error(
        "prompt of {tokens} tokens and {max_new} new ones do not fit the model's {limit}: lower the frames or pixels"
    )]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens to generate.
        max_new: usize,
        /// What fits.
        limit: usize,
    },
    /// The keys and values would never fit the memory set apart for them.
    #[error(
        "keys and values of {tokens} tokens take {needed_mib} MiB, and {budget_mib} MiB are set apart for them: raise \
         --kv-cache, or lower the frames, the pixels or max_new_tokens"
    )]
    NoRoom {
        /// Tokens of the prompt and the new ones.
        tokens: usize,
        /// What they take.
        needed_mib: usize,
        /// What there is.
        budget_mib: usize,
    },
}

impl ModelError {
    pub(crate) fn broken(file: impl Into<String>, reason: impl ToString) -> Self {
        Self::Broken { file: file.into(), reason: reason.to_string() }
    }

    pub(crate) fn unsupported(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Unsupported { file: file.into(), what: what.into() }
    }

    pub(crate) fn tensor(name: impl Into<String>, reason: impl ToString) -> Self {
        Self::Tensor { name: name.into(), reason: reason.to_string() }
    }
}
