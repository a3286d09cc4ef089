//! A model behind an OpenAI-compatible endpoint as [`spectemp_engine::Vlm`]: vLLM, SGLang, llama.cpp's server,
//! mistral.rs, `transformers serve`, commercial ones. Conversations go out as messages with images as data URLs; texts,
//! log-probabilities and token counts come back.
//!
//! An [`Address`] names server, model and how the server is spoken to; [`RemoteVlm::open`] asks it what it serves.

mod address;
mod client;
mod dialect;
mod error;
mod generate;
mod message;
mod models;
mod picture;
mod reply;
mod retry;
mod score;
mod secret;
mod settings;
mod tokens;
mod vlm;
mod wire;

pub use address::Address;
pub use dialect::Dialect;
pub use error::RemoteError;
pub use picture::Picture;
pub use secret::ApiKey;
pub use settings::Settings;
pub use vlm::RemoteVlm;
