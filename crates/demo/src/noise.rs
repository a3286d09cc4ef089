//! Gaussian noise, cheap enough for thousands of frames: one table drawn once, of which every row of every frame
//! takes another stretch.

use crate::rng::{Source, mix};

/// Standard deviation, in levels of 255.
const SIGMA: i32 = 7;

/// Entries that a stretch may start at.
const STARTS: usize = 1 << 16;

/// The table.
pub(crate) struct Noise {
    table: Vec<i16>,
    longest: usize,
}

impl Noise {
    /// A table of which stretches of up to `longest` values can be taken.
    pub(crate) fn new(seed: u64, longest: usize) -> Self {
        let mut source = Source::new(&[seed, 0x006e_6f69_7365]);
        let table = (0..STARTS + longest).map(|_| normal(&mut source)).collect();
        Self { table, longest }
    }

    /// `length` values (at most the longest) for row `row` of frame `frame`.
    pub(crate) fn row(&self, seed: u64, frame: u64, row: u64, length: usize) -> &[i16] {
        let start = mix(seed ^ mix(frame << 16 | row)) as usize % STARTS;
        &self.table[start..start + length.min(self.longest)]
    }
}

/// A normal value of deviation [`SIGMA`]: the sum of twelve uniform bytes has deviation 256 and mean 1530.
/// Integers only, so that no maths library decides a pixel.
fn normal(source: &mut Source) -> i16 {
    let sum: i32 = source.bytes().iter().chain(&source.bytes()[..4]).map(|byte| i32::from(*byte)).sum();
    ((sum - 1530) * SIGMA).div_euclid(256) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_as_stated() {
        let noise = Noise::new(1, 336);
        let values: Vec<f64> =
            (0..112).flat_map(|row| noise.row(5, 9, row, 336)).map(|v| f64::from(*v)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!(mean.abs() < 0.6, "{mean}");
        assert!((deviation - 7.0).abs() < 0.15, "{deviation}");
    }

    #[test]
    fn rows_and_frames_differ() {
        let noise = Noise::new(1, 336);
        assert_ne!(noise.row(5, 0, 0, 336), noise.row(5, 0, 1, 336));
        assert_ne!(noise.row(5, 0, 0, 336), noise.row(5, 1, 0, 336));
    }
}
