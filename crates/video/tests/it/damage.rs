//! Files broken on purpose.

/// The place of the first such bytes.
pub(crate) fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes
        .windows(what.len())
        .position(|window| window == what)
        .unwrap_or_else(|| panic!("no {what:?} in the file"))
}

/// The place of the last such bytes.
pub(crate) fn find_last(bytes: &[u8], what: &[u8]) -> usize {
    bytes
        .windows(what.len())
        .rposition(|window| window == what)
        .unwrap_or_else(|| panic!("no {what:?} in the file"))
}

/// AVI without its index, as a recording that was interrupted leaves it.
pub(crate) fn without_avi_index(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(find_last(&bytes, b"idx1"));
    bytes
}

/// The first `percent` of a file.
pub(crate) fn cut(mut bytes: Vec<u8>, percent: usize) -> Vec<u8> {
    bytes.truncate(bytes.len() * percent / 100);
    bytes
}

/// Pseudo-random numbers, the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        // splitmix64, by Sebastiano Vigna, public domain
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// `count` bytes from `from` on replaced by others.
pub(crate) fn sprinkled(mut bytes: Vec<u8>, from: usize, count: usize, dice: &mut Dice) -> Vec<u8> {
    for _ in 0..count {
        let at = from + (dice.roll() as usize) % (bytes.len() - from);
        bytes[at] = dice.roll() as u8;
    }
    bytes
}
