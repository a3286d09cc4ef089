//! The digits as 5 × 7 bitmaps, the shapes of character displays.

/// Cells per row.
pub const DIGIT_COLUMNS: usize = 5;
/// Rows of cells.
pub const DIGIT_ROWS: usize = 7;

const GLYPHS: [[u8; DIGIT_ROWS]; 10] = [
    [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110],
    [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
    [0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111],
    [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110],
    [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
    [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
    [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
    [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000],
    [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
    [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
];

/// The rows of a digit from the top; bit 4 is the left cell. Digits over 9 wrap around.
pub fn digit_rows(digit: u8) -> [u8; DIGIT_ROWS] {
    GLYPHS[usize::from(digit % 10)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_fills_its_cells_and_differs() {
        for digit in 0..10 {
            let rows = digit_rows(digit);
            assert!(rows.iter().all(|row| *row != 0 && *row < 1 << DIGIT_COLUMNS), "{digit}");
            assert!((0..digit).all(|other| digit_rows(other) != rows), "{digit}");
        }
    }
}
