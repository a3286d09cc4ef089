//! Qwen2.5-VL in candle: processor, vision, text, KV, generation, kernels.

pub mod kernels;
