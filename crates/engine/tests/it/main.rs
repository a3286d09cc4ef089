//! The loop against doubles: a scripted target and draft, a video of still frames.

mod common;
mod loops;
mod policy;
mod prompts;
mod resume;
