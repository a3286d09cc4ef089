//! A question, open or with options to choose from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked. With `choices` the answer is one of them, without it is free text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// The question as the user wrote it.
    pub text: String,
    /// The texts of the options, in order: option 0 is `A`. Empty for an open question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// Why a question cannot be asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuestionError {
    /// No text.
    #[error("question is empty")]
    Empty,
    /// Longer than [`Question::MAX_BYTES`].
    #[error("question or option has {bytes} bytes, at most {} are allowed", Question::MAX_BYTES)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A NUL character, which databases and tokenizers treat each in their own way.
    #[error("question or option holds a NUL character: leave it out")]
    Nul,
    /// One option is no choice, and letters end at 26.
    #[error("question has {0} choices: give none, or 2 to 26")]
    Choices(usize),
    /// An option without text.
    #[error("choice {0} is empty")]
    EmptyChoice(char),
    /// The same option twice: an answer could not be told apart.
    #[error("choices {0} and {1} are the same")]
    SameChoice(char, char),
    /// Two options that [`Question::plain`] makes the same.
    #[error(
        "choices {first} ({first_text:?}) and {second} ({second_text:?}) differ only in case, spaces, quotes or a \
         final full stop, by which answers are not told apart: word one of them differently"
    )]
    AlikeChoices {
        /// The first one's letter.
        first: char,
        /// Its text, shortened where it is long.
        first_text: String,
        /// The second one's letter.
        second: char,
        /// Its text, shortened where it is long.
        second_text: String,
    },
}

impl Question {
    /// The longest question or option, in bytes.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// A checked question.
    ///
    /// # Errors
    /// Empty or overlong texts, NUL characters, one or more than 26 choices, choices that an answer cannot tell apart.
    pub fn new(text: impl Into<String>, choices: Vec<String>) -> Result<Self, QuestionError> {
        let text = text.into();
        if text.trim().is_empty() {
            return Err(QuestionError::Empty);
        }
        if choices.len() == 1 || choices.len() > 26 {
            return Err(QuestionError::Choices(choices.len()));
        }
        let longest = choices.iter().map(String::len).chain([text.len()]).max().unwrap_or(0);
        if longest > Self::MAX_BYTES {
            return Err(QuestionError::TooLong { bytes: longest });
        }
        if choices.iter().chain([&text]).any(|part| part.contains('\0')) {
            return Err(QuestionError::Nul);
        }
        for (i, choice) in choices.iter().enumerate() {
            if choice.trim().is_empty() {
                return Err(QuestionError::EmptyChoice(Self::letter(i)));
            }
        }
        check_different(&choices)?;
        Ok(Self { text, choices })
    }

    /// What of an option's or an answer's text tells it apart from others: lower case, single spaces, without quotes
    /// around it or a final full stop.
    pub fn plain(text: &str) -> String {
        let words: Vec<_> = text.split_whitespace().collect();
        let joined = words.join(" ").to_lowercase();
        let bare = joined.trim_matches(['"', '\'', '*', '`']).trim_end_matches('.').trim();
        if bare.is_empty() { joined } else { bare.to_owned() }
    }

    /// The letter of option `index`: 0 is `A`.
    pub fn letter(index: usize) -> char {
        char::from(b'A' + (index % 26) as u8)
    }
}

/// Fails where two options are the same to an answer.
fn check_different(choices: &[String]) -> Result<(), QuestionError> {
    let plain: Vec<String> = choices.iter().map(|choice| Question::plain(choice)).collect();
    for (j, text) in plain.iter().enumerate() {
        let Some(i) = plain[..j].iter().position(|other| other == text) else { continue };
        let (first, second) = (Question::letter(i), Question::letter(j));
        if choices[i].trim() == choices[j].trim() {
            return Err(QuestionError::SameChoice(first, second));
        }
        let (first_text, second_text) = (shortened(&choices[i]), shortened(&choices[j]));
        return Err(QuestionError::AlikeChoices { first, first_text, second, second_text });
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    let cut = text.char_indices().nth(MOST).map(|(at, _)| &text[..at]);
    cut.map_or_else(|| text.to_owned(), |start| format!("{start}…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_questions_are_refused() {
        let ask = |text: &str, choices: &[&str]| {
            Question::new(text, choices.iter().map(|c| (*c).to_owned()).collect())
        };
        assert_eq!(ask(" ", &[]), Err(QuestionError::Empty));
        assert_eq!(ask("q", &["a"]), Err(QuestionError::Choices(1)));
        assert_eq!(ask("q", &["a", ""]), Err(QuestionError::EmptyChoice('B')));
        assert_eq!(ask("q", &["a", "b", "a "]), Err(QuestionError::SameChoice('A', 'C')));
        assert_eq!(ask("q", &["a", "b\0"]), Err(QuestionError::Nul));
        assert!(ask(&"q".repeat(9000), &[]).is_err());
        assert!(ask("q", &["a", "b"]).is_ok());
    }

    #[test]
    fn options_that_an_answer_cannot_tell_apart_are_refused_and_both_are_named() {
        let ask = |choices: &[&str]| Question::new("q", choices.iter().map(|c| (*c).to_owned()).collect());
        for alike in [["A", "a"], ["The  dog", "the dog."], ["\"no\"", "No"], ["Ärger", "äRGER"]] {
            let said = ask(&["other", alike[0], alike[1]]).unwrap_err().to_string();
            for part in [format!("B ({:?})", alike[0]), format!("C ({:?})", alike[1])] {
                assert!(said.contains(&part), "{part}: {said}");
            }
        }
        let long = "x".repeat(8000);
        let said = ask(&[&long, &long.to_uppercase()]).unwrap_err().to_string();
        assert!(said.contains("…") && said.len() < 400, "{said}");
        for different in [["5 mW", "5 MW of power"], ["a", "an"], ["...", "."], ["'", "\""]] {
            assert!(ask(&different).is_ok(), "{different:?}");
        }
    }
}
