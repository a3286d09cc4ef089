//! What the model computes with: products with packed weights, norms, activations, rotary attention over a KV cache.
//!
//! Every function takes and gives candle tensors. On the CPU, with f32 activations, it runs code of this module; on other
//! devices it falls back to candle's operations (`fallback`), which are also what the tests compare with.
//! The CPU code computes each output element by one fixed sequence of additions that depends neither on the number
//! of rows in a call nor on the number of threads: prefill in one piece, in pieces, or token by token gives the same bits.
//! With weights in blocks (`quantized`) each row of activations is quantised by itself, so the rule holds there too.

mod activation;
mod attention;
mod buffer;
mod cache;
mod dispatch;
mod fallback;
mod linear;
mod mass;
mod math;
mod meter;
mod norm;
mod panels;
mod product;
mod quantized;
mod rotary;
mod row;
mod tensor;
#[cfg(test)]
mod tests;
mod threads;
mod tile;

pub use activation::{gelu, silu_mul};
pub use attention::{Heads, KvSpan, causal_attention, segment_attention};
pub use cache::KvCache;
pub use dispatch::instructions;
pub use linear::{Linear, Part, QuantizedPart, QuantizedWeight};
pub use mass::attention_mass;
pub use meter::KvMeter;
pub use norm::{add_rms_norm, rms_norm};
pub use quantized::BlockType;
pub use rotary::Rotary;
pub use row::{argmax, log_sum};
pub use threads::Threads;
