//! Frames of real files against FFmpeg's own decode: containers × codecs, broken objects, faulty servers, and the
//! bytes that were read. The clips are encoded by the machine's `ffmpeg` into the target folder and kept there;
//! without `ffmpeg` and `ffprobe` these tests fail.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a test ends where something is wrong"
)]

mod broken;
mod bytes;
mod clips;
mod damage;
mod faults;
mod keyframes;
mod matrix;
mod oracle;
mod server;
mod support;
mod times;
