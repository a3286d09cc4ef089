//! The loop of rounds: strategies, prompts, output parsing, budgets. No I/O: what it needs of the world it asks
//! through two traits, [`Vlm`] (target and draft are two values of it) and [`FrameSource`] (a video).

mod frames;
mod pixels;
mod vlm;

pub use frames::{Frame, FrameBatch, FrameError, FrameMode, FrameRequest, FrameSource, VideoFacts};
pub use pixels::{PixelBudget, PixelError, RgbImage, resize_bicubic, smart_resize};
pub use vlm::{
    Generation, Message, ModelCard, Part, PromptTemplates, Request, Role, Sampling, Score, TokenRecord, Vlm, VlmError,
};
