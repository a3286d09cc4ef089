//! The model against golden files of the reference implementation, and against itself.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod batching;
mod broken;
mod forms;
mod generation;
mod gguf;
mod gguf_file;
mod golden;
mod hub;
mod loops;
mod network;
mod processor;
mod speculation;
mod spellings;
mod support;
mod turns;
