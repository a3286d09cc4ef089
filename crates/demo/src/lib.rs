//! The demonstration domain: synthetic long videos of coloured scenes, in each of which one digit flashes once, and
//! the questions about them. Everything follows from a seed: plan first ([`Archive`]), then frame by frame
//! ([`Painter`]). No I/O: encoding and files are other rooms' work.

mod archive;
mod digits;
mod noise;
mod paint;
mod palette;
mod rng;
mod scene;
mod video;

pub use archive::{Archive, ArchiveError, ArchiveOptions};
pub use digits::{DIGIT_COLUMNS, DIGIT_ROWS, digit_rows};
pub use paint::{Painter, SIDE};
pub use palette::{Colour, SpriteColour, SpriteShape, Texture};
pub use scene::{Flash, Scene, Sprite};
pub use video::{DemoQuestion, DemoVideo};
