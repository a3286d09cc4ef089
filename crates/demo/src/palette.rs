//! Colours, textures and sprite shapes of the domain.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The colour of a scene: what a question names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Purple,
    Orange,
    Cyan,
    Gray,
}

impl Colour {
    /// All colours.
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Purple,
        Self::Orange,
        Self::Cyan,
        Self::Gray,
    ];

    /// The word in questions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Purple => "purple",
            Self::Orange => "orange",
            Self::Cyan => "cyan",
            Self::Gray => "gray",
        }
    }

    /// Red, green and blue, 0 to 255.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [205, 40, 40],
            Self::Green => [40, 160, 60],
            Self::Blue => [45, 75, 215],
            Self::Yellow => [225, 205, 50],
            Self::Purple => [140, 55, 185],
            Self::Orange => [235, 130, 35],
            Self::Cyan => [60, 195, 205],
            Self::Gray => [135, 135, 135],
        }
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The pattern over a scene's colour; all patterns repeat after [`Texture::PERIOD`] pixels both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Texture {
    /// None.
    Plain,
    /// Diagonal stripes, 12 px of every 28.
    Striped,
    /// Discs of radius √72 on a grid of 28 px.
    Dotted,
    /// Squares of 14 px.
    Checkered,
}

impl Texture {
    /// All textures.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Striped, Self::Dotted, Self::Checkered];

    /// Pixels after which every pattern repeats, in x and in y.
    pub const PERIOD: i32 = 28;

    /// True where the pattern darkens the colour; `x` and `y` in `0..PERIOD`.
    pub fn darkens(self, x: i32, y: i32) -> bool {
        match self {
            Self::Plain => false,
            Self::Striped => (x + y) % Self::PERIOD < 12,
            Self::Dotted => (x - 14).pow(2) + (y - 14).pow(2) < 72,
            Self::Checkered => (x / 14 + y / 14) % 2 == 1,
        }
    }
}

/// The shape of the sprite that drifts over a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum SpriteShape {
    Disc,
    Diamond,
    Triangle,
}

impl SpriteShape {
    /// All shapes.
    pub const ALL: [Self; 3] = [Self::Disc, Self::Diamond, Self::Triangle];

    /// True where the shape of that radius covers the point `(dx, dy)` from its centre.
    pub fn covers(self, dx: f64, dy: f64, radius: f64) -> bool {
        match self {
            Self::Disc => dx * dx + dy * dy <= radius * radius,
            Self::Diamond => dx.abs() + dy.abs() <= radius,
            // Its tip is up: the width grows from nothing at the top to 2 × radius at the bottom.
            Self::Triangle => dy.abs() <= radius && dx.abs() <= (dy + radius) / 2.0,
        }
    }
}

/// The colour of a sprite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum SpriteColour {
    White,
    Black,
    Pink,
}

impl SpriteColour {
    /// All sprite colours.
    pub const ALL: [Self; 3] = [Self::White, Self::Black, Self::Pink];

    /// Red, green and blue, 0 to 255.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::White => [245, 245, 245],
            Self::Black => [15, 15, 15],
            Self::Pink => [250, 120, 200],
        }
    }
}
