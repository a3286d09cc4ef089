//! Qwen2.5-VL in candle: from a Hugging Face checkpoint to answers, on the CPU or one GPU.
//!
//! [`QwenVlm`] is the model behind [`spectemp_engine::Vlm`]; a [`DeviceThread`] runs the requests of several models together;
//! [`ModelFiles`] says where a checkpoint is, [`hub`] fetches one, [`check`]
//! compares one with golden files of the reference implementation. Inside, a stage per file: [`config`], [`weights`],
//! [`processor`], [`vision`], [`rope`], [`text`], [`kv`], over the operations of [`kernels`].

mod batch;
pub mod bench;
mod chat;
pub mod check;
pub mod config;
mod constrain;
mod device;
mod error;
mod files;
mod gguf;
mod golden;
pub mod hub;
mod images;
pub mod kernels;
pub mod kv;
mod loader;
mod memory;
pub mod network;
mod prefix;
pub mod processor;
mod prompt;
mod pycompat;
mod revision;
pub mod rope;
mod safetensors;
mod sample;
mod score;
mod sequence;
mod speculate;
pub mod text;
mod thread;
mod tokenizer;
pub mod vision;
mod visions;
mod vlm;
pub mod weights;
mod window;
mod writer;

pub use device::{DTypeChoice, DeviceChoice, LoadOptions, WeightTypes};
pub use error::ModelError;
pub use files::ModelFiles;
pub use speculate::{ProposerChoice, Speculation, SpeculationFigures};
pub use thread::DeviceThread;
pub use tokenizer::Tokenizer;
pub use visions::EmbeddingTier;
pub use vlm::QwenVlm;
