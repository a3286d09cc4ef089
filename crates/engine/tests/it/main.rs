//! The loop against doubles: a scripted target and draft, a video of still frames.

#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod common;
mod forms;
mod loops;
mod policy;
mod prompts;
mod resume;
