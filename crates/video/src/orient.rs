//! Rotation metadata: the display matrix of a stream, as far as it turns by quarters and mirrors.

use spectemp_engine::RgbImage;

/// Where a pixel goes: `x' = a·x + c·y`, `y' = b·x + d·y`, moved back into the picture. Each is -1, 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orientation {
    a: i8,
    b: i8,
    c: i8,
    d: i8,
}

impl Orientation {
    /// As decoded.
    pub(crate) const UPRIGHT: Self = Self { a: 1, b: 0, c: 0, d: 1 };

    /// Reads a display matrix (16.16 fixed point); none where it turns by other angles than quarters.
    pub(crate) fn from_matrix(matrix: &[i32; 9]) -> Option<Self> {
        let [a, b, c, d] = [matrix[0], matrix[1], matrix[3], matrix[4]].map(f64::from);
        let (across, down) = (a.hypot(b), c.hypot(d));
        if across == 0.0 || down == 0.0 {
            return None;
        }
        let [a, b, c, d] = [a / across, b / across, c / down, d / down];
        let quarter = |value: f64| (value - value.round()).abs() < 0.02;
        if ![a, b, c, d].into_iter().all(quarter) {
            return None;
        }
        let [a, b, c, d] = [a, b, c, d].map(|value| value.round() as i8);
        (a * d - b * c != 0).then_some(Self { a, b, c, d })
    }

    /// Mirrored left to right (first), and degrees clockwise (then).
    pub(crate) fn parts(self) -> (bool, u32) {
        let mirrored = self.a * self.d - self.b * self.c < 0;
        let sign = if mirrored { -1 } else { 1 };
        let degrees = match (sign * self.a, sign * self.b) {
            (0, 1) => 90,
            (-1, _) => 180,
            (0, -1) => 270,
            _ => 0,
        };
        (mirrored, degrees)
    }

    /// The orientation of [`Self::parts`].
    pub(crate) fn from_parts(mirrored: bool, degrees: u32) -> Self {
        let (cos, sin) = match degrees {
            90 => (0, 1),
            180 => (-1, 0),
            270 => (0, -1),
            _ => (1, 0),
        };
        let sign = if mirrored { -1 } else { 1 };
        Self { a: sign * cos, b: sign * sin, c: -sin, d: cos }
    }

    /// True for quarter turns to either side.
    pub(crate) fn swaps_sides(self) -> bool {
        self.a == 0
    }

    /// The picture as it is to be seen.
    pub(crate) fn turn(self, image: RgbImage) -> RgbImage {
        if self == Self::UPRIGHT {
            return image;
        }
        let (w, h) = (image.width as usize, image.height as usize);
        let (width, height) = if self.swaps_sides() { (h, w) } else { (w, h) };
        let [a, b, c, d] = [self.a, self.b, self.c, self.d].map(isize::from);
        let back = |first: isize, second: isize| {
            (if first < 0 { w as isize - 1 } else { 0 }) + (if second < 0 { h as isize - 1 } else { 0 })
        };
        let (left, top) = (back(a, c), back(b, d));
        let mut data = vec![0; image.data.len()];
        for y in 0..h as isize {
            for x in 0..w as isize {
                let to = ((b * x + d * y + top) as usize * width + (a * x + c * y + left) as usize) * 3;
                let from = (y as usize * w + x as usize) * 3;
                data[to..to + 3].copy_from_slice(&image.data[from..from + 3]);
            }
        }
        RgbImage { width: width as u32, height: height as u32, data: data.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: i32 = 1 << 16;

    fn image() -> RgbImage {
        // 1 2 3
        // 4 5 6
        RgbImage { width: 3, height: 2, data: (1..=6).flat_map(|v| [v, v, v]).collect::<Vec<u8>>().into() }
    }

    fn rows(image: &RgbImage) -> Vec<u8> {
        image.data.iter().step_by(3).copied().collect()
    }

    #[test]
    fn a_quarter_turn_clockwise_puts_the_left_column_on_top() {
        let matrix = [0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30];
        let turn = Orientation::from_matrix(&matrix).unwrap();
        assert_eq!(turn.parts(), (false, 90));
        let turned = turn.turn(image());
        assert_eq!((turned.width, turned.height, rows(&turned)), (2, 3, vec![4, 1, 5, 2, 6, 3]));
    }

    #[test]
    fn all_eight_orientations_survive_their_parts() {
        for mirrored in [false, true] {
            for degrees in [0, 90, 180, 270] {
                assert_eq!(Orientation::from_parts(mirrored, degrees).parts(), (mirrored, degrees));
            }
        }
        assert_eq!(rows(&Orientation::from_parts(true, 0).turn(image())), vec![3, 2, 1, 6, 5, 4]);
        assert_eq!(rows(&Orientation::from_parts(false, 180).turn(image())), vec![6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn odd_angles_are_not_taken() {
        assert_eq!(Orientation::from_matrix(&[46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30]), None);
        assert_eq!(Orientation::from_matrix(&[0; 9]), None);
    }
}
