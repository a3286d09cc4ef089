//! Painting: a plan and a frame number become pixels. Each frame stands alone, so that frames can be painted in any
//! order and by several threads.

use crate::{DIGIT_COLUMNS, DemoVideo, Flash, Scene, Texture, digits::digit_rows, noise::Noise};

/// Width and height of every frame, in pixels.
pub const SIDE: u32 = 112;

const ROW: usize = SIDE as usize * 3;
/// How much of a scene's colour is left where its pattern darkens it.
const DARK: f64 = 0.45;
/// Radians per second of the wavering brightness.
const WAVER_RATE: f64 = 0.05;
const PLAQUE: i16 = 8;
const DIGIT: i16 = 245;

/// Paints the frames of one video.
pub struct Painter<'a> {
    video: &'a DemoVideo,
    noise: Noise,
}

impl<'a> Painter<'a> {
    /// Bytes of a frame: 8 bit RGB, rows from the top, no padding.
    pub const FRAME_BYTES: usize = ROW * SIDE as usize;

    pub(crate) fn new(video: &'a DemoVideo) -> Self {
        Self { video, noise: Noise::new(video.seed, ROW) }
    }

    /// Frame `number`, shown at `number / fps` seconds: [`Self::FRAME_BYTES`] bytes.
    pub fn frame(&self, number: u64) -> Vec<u8> {
        let mut canvas = Canvas { samples: vec![0; Self::FRAME_BYTES] };
        let seconds = number as f64 / f64::from(self.video.fps);
        if let Some(scene) = self.video.scene_at(seconds) {
            canvas.scene(scene, seconds);
            if (scene.flash.span.start_s..scene.flash.span.end_s).contains(&seconds) {
                canvas.flash(&scene.flash);
            }
        }
        canvas.finish(|row| self.noise.row(self.video.seed, number, row, ROW))
    }
}

/// Samples wider than a byte, so that brightness and noise can push them past the ends before they are clamped.
struct Canvas {
    samples: Vec<i16>,
}

impl Canvas {
    fn put(&mut self, x: usize, y: usize, rgb: [i16; 3]) {
        self.samples[y * ROW + 3 * x..][..3].copy_from_slice(&rgb);
    }

    /// Colour, pattern and sprite, all in the scene's wavering light.
    fn scene(&mut self, scene: &Scene, seconds: f64) {
        let since = seconds - scene.span.start_s;
        let light = scene.waver * (WAVER_RATE * since + scene.phase).sin();
        let lit =
            |rgb: [u8; 3], factor: f64| rgb.map(|value| (f64::from(value) * factor + light).round() as i16);
        let (bright, dark) = (lit(scene.colour.rgb(), 1.0), lit(scene.colour.rgb(), DARK));
        let shift = [0, 1].map(|axis| (scene.offset[axis] + scene.scroll[axis] * since).floor() as i32);
        for y in 0..SIDE as i32 {
            let pattern_y = (y + shift[1]).rem_euclid(Texture::PERIOD);
            for x in 0..SIDE as i32 {
                let pattern_x = (x + shift[0]).rem_euclid(Texture::PERIOD);
                let darkened = scene.texture.darkens(pattern_x, pattern_y);
                self.put(x as usize, y as usize, if darkened { dark } else { bright });
            }
        }
        self.sprite(scene, since, lit(scene.sprite.colour.rgb(), 1.0));
    }

    fn sprite(&mut self, scene: &Scene, since: f64, rgb: [i16; 3]) {
        let sprite = &scene.sprite;
        let [centre_x, centre_y] = sprite.centre(since);
        let around = |centre: f64| {
            let low = (centre - sprite.radius).floor().max(0.0) as usize;
            low..((centre + sprite.radius).ceil() as usize + 1).min(SIDE as usize)
        };
        for y in around(centre_y) {
            for x in around(centre_x) {
                if sprite.shape.covers(x as f64 - centre_x, y as f64 - centre_y, sprite.radius) {
                    self.put(x, y, rgb);
                }
            }
        }
    }

    fn flash(&mut self, flash: &Flash) {
        let (width, height) = flash.plaque();
        let rows = digit_rows(flash.digit);
        for y in 0..height {
            for x in 0..width {
                let cell =
                    |at: u32| at.checked_sub(Flash::MARGIN).map(|inside| (inside / flash.cell) as usize);
                let lit = matches!((cell(x), cell(y)), (Some(column), Some(row))
                    if column < DIGIT_COLUMNS && row < rows.len() && rows[row] >> (DIGIT_COLUMNS - 1 - column) & 1 == 1);
                let value = if lit { DIGIT } else { PLAQUE };
                self.put((flash.left + x) as usize, (flash.top + y) as usize, [value; 3]);
            }
        }
    }

    fn finish<'n>(self, noise_of_row: impl Fn(u64) -> &'n [i16]) -> Vec<u8> {
        let rows = self.samples.chunks_exact(ROW).enumerate();
        rows.flat_map(|(y, row)| {
            row.iter().zip(noise_of_row(y as u64)).map(|(sample, noise)| (sample + noise).clamp(0, 255) as u8)
        })
        .collect()
    }
}
