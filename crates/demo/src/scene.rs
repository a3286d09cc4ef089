//! A scene: its span, its looks, and the digit that flashes in it once.

use serde::{Deserialize, Serialize};
use spectemp_types::TimeSpan;

use crate::{Colour, DIGIT_COLUMNS, DIGIT_ROWS, SIDE, SpriteColour, SpriteShape, Texture, rng::Source};

/// The digit's moment and place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flash {
    /// The digit, 0 to 9.
    pub digit: u8,
    /// When it is shown: 1.05 to 2 s, at least 0.3 s from the ends of its scene.
    pub span: TimeSpan,
    /// Pixels per cell of the bitmap, 7 to 9.
    pub cell: u32,
    /// Left edge of the plaque, in pixels.
    pub left: u32,
    /// Upper edge of the plaque, in pixels.
    pub top: u32,
}

impl Flash {
    /// The plaque's margin around the digit, in pixels.
    pub const MARGIN: u32 = 5;

    /// Width and height of the plaque, in pixels.
    pub fn plaque(&self) -> (u32, u32) {
        plaque(self.cell)
    }
}

fn plaque(cell: u32) -> (u32, u32) {
    (DIGIT_COLUMNS as u32 * cell + 2 * Flash::MARGIN, DIGIT_ROWS as u32 * cell + 2 * Flash::MARGIN)
}

/// The thing that drifts over a scene and bounces off the frame's edges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sprite {
    /// Its shape.
    pub shape: SpriteShape,
    /// Its colour.
    pub colour: SpriteColour,
    /// Its radius in pixels, 7 to 13.
    pub radius: f64,
    /// Where its centre is when the scene begins, in pixels.
    pub start: [f64; 2],
    /// Pixels per second in x and y, each −9 to 9.
    pub velocity: [f64; 2],
}

impl Sprite {
    /// Its centre `seconds` after the scene began.
    pub fn centre(&self, seconds: f64) -> [f64; 2] {
        let (low, high) = (self.radius, f64::from(SIDE) - self.radius);
        [0, 1].map(|axis| bounce(self.start[axis] + self.velocity[axis] * seconds, low, high))
    }
}

/// `position` folded into `low..=high`, as a thing moves that turns round at both.
fn bounce(position: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    let along = (position - low).rem_euclid(2.0 * range);
    low + if along > range { 2.0 * range - along } else { along }
}

/// A stretch of the video in one colour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// Its place on the time line.
    pub span: TimeSpan,
    /// Its colour, of which each video has a scene at most once.
    pub colour: Colour,
    /// Its pattern.
    pub texture: Texture,
    /// Where the pattern starts, in pixels.
    pub offset: [f64; 2],
    /// Pixels per second that the pattern scrolls, each −6 to 6.
    pub scroll: [f64; 2],
    /// How far its brightness wavers, 0 to 18 levels.
    pub waver: f64,
    /// Phase of the wavering, in radians.
    pub phase: f64,
    /// What drifts over it.
    pub sprite: Sprite,
    /// The digit in it.
    pub flash: Flash,
}

impl Scene {
    /// A scene of that span and colour, all else drawn from `source`.
    pub(crate) fn draw(source: &mut Source, span: TimeSpan, colour: Colour) -> Self {
        let texture = Texture::ALL[source.index(Texture::ALL.len())];
        let period = f64::from(Texture::PERIOD);
        Self {
            span,
            colour,
            texture,
            offset: [source.between(0.0, period), source.between(0.0, period)],
            scroll: [source.between(-6.0, 6.0), source.between(-6.0, 6.0)],
            waver: source.between(0.0, 18.0),
            phase: source.between(0.0, std::f64::consts::TAU),
            sprite: draw_sprite(source),
            flash: draw_flash(source, span),
        }
    }
}

fn draw_sprite(source: &mut Source) -> Sprite {
    let radius = source.between(7.0, 13.0);
    let (low, high) = (radius, f64::from(SIDE) - radius);
    Sprite {
        shape: SpriteShape::ALL[source.index(SpriteShape::ALL.len())],
        colour: SpriteColour::ALL[source.index(SpriteColour::ALL.len())],
        radius,
        start: [source.between(low, high), source.between(low, high)],
        velocity: [source.between(-9.0, 9.0), source.between(-9.0, 9.0)],
    }
}

/// Seconds between a flash and the ends of its scene.
const CLEARANCE_S: f64 = 0.3;

fn draw_flash(source: &mut Source, scene: TimeSpan) -> Flash {
    let seconds = source.between(1.05, 2.0);
    let start_s = source.between(scene.start_s + CLEARANCE_S, scene.end_s - CLEARANCE_S - seconds);
    let cell = 7 + source.index(3) as u32;
    let (width, height) = plaque(cell);
    Flash {
        digit: source.index(10) as u8,
        span: TimeSpan { start_s, end_s: start_s + seconds },
        cell,
        left: source.index((SIDE - width + 1) as usize) as u32,
        top: source.index((SIDE - height + 1) as usize) as u32,
    }
}

/// Cuts `seconds` into 5 to 7 spans, each at least 1.25 tenths of it: ten uniform frames then meet every scene.
pub(crate) fn cut(source: &mut Source, seconds: f64) -> Vec<TimeSpan> {
    let count = 5 + source.index(3);
    let least = 1.25 * seconds / 10.0;
    let shares: Vec<f64> = (0..count).map(|_| source.between(0.0, 1.0)).collect();
    let spare = (seconds - least * count as f64) / shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let mut start_s = 0.0;
    let mut spans: Vec<TimeSpan> = shares
        .iter()
        .map(|share| {
            let span = TimeSpan { start_s, end_s: start_s + least + spare * share };
            start_s = span.end_s;
            span
        })
        .collect();
    if let Some(last) = spans.last_mut() {
        // Sums of fractions end a hair beside the video's end.
        last.end_s = seconds;
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sprite_turns_round_at_the_edges() {
        assert_eq!(bounce(5.0, 0.0, 10.0), 5.0);
        assert_eq!(bounce(12.0, 0.0, 10.0), 8.0);
        assert_eq!(bounce(-3.0, 0.0, 10.0), 3.0);
        assert_eq!(bounce(21.0, 0.0, 10.0), 1.0);
    }
}
