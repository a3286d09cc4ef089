//! The loop of rounds: strategies, prompts, output parsing, budgets. No I/O: what it needs of the world it asks
//! through two traits, [`Vlm`] (target and draft are two values of it) and [`FrameSource`] (a video).
//!
//! A caller makes a [`Session`] from a job and the rounds that are there already, asks it for one [`Round`] after the
//! other, writes each down before asking for the next, and takes the [`Outcome`].
//!
//! [`Round`]: spectemp_types::Round

mod choice;
mod error;
mod estimate;
mod frames;
mod grammar;
mod labels;
mod numbers;
mod parse;
mod pixels;
pub mod prompt;
mod resample;
mod sampling;
mod session;
mod strategy;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod verdict;
mod vlm;

pub use choice::ChoicesAs;
pub use error::{ErrorClass, SessionError};
pub use estimate::{Between, Estimate, estimate};
pub use frames::{Frame, FrameBatch, FrameError, FrameMode, FrameRequest, FrameSource, VideoFacts};
pub use grammar::{AnswerForm, Decimal, Ending, Grammar, Pattern, THOUGHT_CLOSES, THOUGHT_OPENS, Times};
pub use labels::LabelKind;
pub use pixels::{PixelBudget, PixelError, RgbImage, resize_bicubic, smart_resize};
pub use session::{Outcome, Session, Setup};
pub use vlm::{
    Abilities, Generation, Message, ModelCard, Part, PromptTemplates, Request, Role, Sampling, Score,
    TokenRecord, Vlm, VlmError,
};
