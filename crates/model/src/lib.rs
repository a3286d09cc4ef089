//! Qwen2.5-VL in candle: from a Hugging Face checkpoint to answers, on the CPU or one GPU.
//!
//! [`QwenVlm`] is the model behind [`spectemp_engine::Vlm`]; [`ModelFiles`] says where a checkpoint is, [`hub`] fetches one, [`check`]
//! compares one with golden files of the reference implementation. Inside, a stage per file: [`config`], [`weights`],
//! [`processor`], [`vision`], [`rope`], [`text`], [`kv`], over the operations of [`kernels`].

pub mod bench;
mod chat;
pub mod check;
pub mod config;
mod device;
mod error;
mod files;
mod generate;
mod gguf;
mod golden;
pub mod hub;
pub mod kernels;
pub mod kv;
mod loader;
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
pub mod text;
mod tokenizer;
pub mod vision;
mod vlm;
pub mod weights;
mod window;

pub use device::{DTypeChoice, DeviceChoice, LoadOptions, WeightTypes};
pub use error::ModelError;
pub use files::ModelFiles;
pub use tokenizer::Tokenizer;
pub use vlm::QwenVlm;
