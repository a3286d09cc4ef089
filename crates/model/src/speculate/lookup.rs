//! Prompt lookup: a model that thinks aloud repeats itself and what it was told. What followed the last time that the
//! newest tokens stood somewhere is the guess. Costs no model call, and a wrong guess costs only its row.

/// Longest run of tokens that is looked for, and the shortest that counts.
const LONGEST: usize = 8;
const SHORTEST: usize = 2;

/// Up to `most` tokens that may follow `known`: those after the latest earlier place where its longest ending stands.
/// `is_text` tells which of the tokens mean something by their id (an image's tokens do not).
pub(crate) fn guess(known: &[u32], is_text: impl Fn(u32) -> bool, most: usize) -> Vec<u32> {
    for length in (SHORTEST..=LONGEST.min(known.len().saturating_sub(1))).rev() {
        let ending = &known[known.len() - length..];
        let earlier = &known[..known.len() - 1];
        let found = earlier.windows(length).rposition(|window| window == ending);
        let Some(at) = found.filter(|_| ending.iter().all(|&id| is_text(id))) else { continue };
        // Where it runs into the end, what is written repeats itself: so do the guesses.
        let follows = known[at + length..].iter().copied().cycle().take(most);
        return follows.take_while(|&id| is_text(id)).collect();
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: u32 = 99;

    fn guessed(known: &[u32], most: usize) -> Vec<u32> {
        guess(known, |id| id != IMAGE, most)
    }

    #[test]
    fn what_followed_the_longest_and_latest_ending() {
        assert_eq!(guessed(&[1, 2, 3, 4, 5, 1, 2, 3], 2), [4, 5]);
        // The longer ending counts before the later one.
        assert_eq!(guessed(&[1, 2, 3, 7, 2, 3, 8, 1, 2, 3], 1), [7]);
        assert_eq!(guessed(&[2, 3, 7, 2, 3, 8, 2, 3], 1), [8]);
        // A run that goes on into the ending itself repeats it.
        assert_eq!(guessed(&[5, 5, 5], 4), [5, 5, 5, 5]);
        assert_eq!(guessed(&[9, 1, 2, 3, 1, 2, 3], 4), [1, 2, 3, 1]);
    }

    #[test]
    fn nothing_where_nothing_stood_before() {
        assert!(guessed(&[1, 2, 3, 4], 3).is_empty());
        assert!(guessed(&[], 3).is_empty());
        assert!(guessed(&[1], 3).is_empty());
        // Tokens of images are equal without meaning the same.
        assert!(guessed(&[IMAGE, IMAGE, 4, IMAGE, IMAGE], 3).is_empty());
        assert_eq!(guessed(&[1, 2, IMAGE, 3, 1, 2], 3), [0; 0]);
    }
}
